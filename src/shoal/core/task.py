"""A task in its plain-data form: all that the core, the wire and the server ever see of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from shoal.core.cohort import Cohort
from shoal.core.errors import TaskError, UnsupportedArray
from shoal.core.origin import Origin
from shoal.core.plan import Buffered, EarlyStop, Late
from shoal.core.rate import CONSTANT, Rate
from shoal.core.roles import Role
from shoal.core.schedule import Schedule
from shoal.core.schema import RowSchema
from shoal.core.seeds import SEED_BITS
from shoal.core.serving import Serving
from shoal.core.subject import Subject
from shoal.core.tree import DTYPES

Option: TypeAlias = bool | int | float | str | None
Start: TypeAlias = Literal["global", "personal"]
Kind: TypeAlias = Literal["training", "statistics", "histogram", "quantiles", "evaluation"]

WEIGHT_UNIT = 1 << 16
"""Weights are integers in units of 2**-16, rounded once, when an update is made or accepted."""

SUM_BITS = 62
"""Bits that a fixed-point sum may use; int64 has 63 beside the sign, one is kept free for `merge`."""


def weight_units(weight: float) -> int:
    """Round a weight (such as a number of examples) to integer units of 2**-16."""
    return round(weight * WEIGHT_UNIT)


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a model: its shape, numpy dtype name and role."""

    shape: tuple[int, ...]
    dtype: str
    role: Role = Role.TRAINABLE

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UnsupportedArray(f"an array of dtype {self.dtype}", f"use one of {', '.join(DTYPES)}")
        if any(side < 0 for side in self.shape):
            raise UnsupportedArray(f"an array of shape {self.shape}", "give sizes that are not negative")
        floating = self.dtype.startswith("float")
        if self.role in (Role.TRAINABLE, Role.BUFFER) and not floating:
            raise UnsupportedArray(
                f"a {self.role} array of dtype {self.dtype}",
                "only float arrays are averaged: make it a counter or frozen",
            )
        if self.role is Role.COUNTER and not self.dtype.startswith("int"):
            raise UnsupportedArray(f"a counter of dtype {self.dtype}", "counters are signed integers")


@dataclass(frozen=True, slots=True)
class Component:
    """A named part (aggregator, server optimizer) with its options, looked up among those installed."""

    name: str
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """One torch.optim class by its lower-case name, with that class's own parameter names. Plain data."""

    name: str
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What a device does with its examples in one round.

    `proximal` is FedProx's mu (Li et al. 2020, arXiv:1812.06127): the penalty mu/2 * ||w - w_global||^2.
    `start` says from which model training begins: the global version, or the device's personal model where it has
    one. Either way the update is what training ended with minus the global version.

    The learning rate is multiplied by `per_round` (time counts rounds) and `per_step` (time counts the device's steps
    of the round). `clip_gradient` bounds the L2 norm of all gradients of a step, as torch's clip_grad_norm_;
    `clip_update` that of the trainable part of the whole update. None bounds nothing.

    `rule` names what a strategy does beside plain training (`algorithms.rule`).
    """

    epochs: int = 1
    batch_size: int = 32
    optimizer: OptimizerSpec = OptimizerSpec("sgd", {"lr": 0.01})
    shuffle: bool = True
    proximal: float = 0.0
    start: Start = "global"
    per_round: Rate = CONSTANT
    per_step: Rate = CONSTANT
    clip_gradient: float | None = None
    clip_update: float | None = None
    rule: Component | None = None

    def at_round(self, round: int) -> "LocalPlan":
        """Return the plan of one round, the first of which is 1: its own learning rate, and no `per_round`."""
        if self.per_round == CONSTANT:
            return self
        options = self.optimizer.options
        scaled = {**options, "lr": float(options["lr"] or 0.0) * self.per_round.at(round - 1)}
        return replace(self, optimizer=replace(self.optimizer, options=scaled), per_round=CONSTANT)

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, OptimizerSpec):
            raise TaskError(
                f"local plan with the optimizer {self.optimizer!r}",
                "give shoal.sgd(lr=...), shoal.adam(...) or shoal.adamw(...): plain data, no torch.optim",
            )
        if self.start not in ("global", "personal"):
            raise TaskError(f"local plan with start={self.start!r}", 'give "global" or "personal"')
        if self.epochs < 1 or self.batch_size < 1:
            raise TaskError(
                f"local plan with epochs={self.epochs}, batch_size={self.batch_size}", "give both at least 1"
            )
        if not self.proximal >= 0:
            raise TaskError(f"local plan with proximal={self.proximal}", "give a number that is not negative")
        for name, bound in (("clip_gradient", self.clip_gradient), ("clip_update", self.clip_update)):
            if bound is not None and not bound > 0:
                raise TaskError(f"local plan with {name}={bound}", "give a positive number, or None")
        if self.per_round != CONSTANT and "lr" not in self.optimizer.options:
            raise TaskError(f"a schedule for {self.optimizer.name!r} without lr", "give the optimizer its lr")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one update may hold; together they fix the fixed-point format, so that no sum can overflow.

    `max_abs` bounds every value of an update, `max_weight` its weight (in the caller's unit, such as examples),
    `max_updates` how many updates one version sums.
    """

    max_abs: float = 1024.0
    max_weight: float = float(1 << 20)
    max_updates: int = 1 << 10

    @property
    def fraction_bits(self) -> int:
        """Binary digits after the point in a sum of value times weight units."""
        span = (
            math.ceil(math.log2(self.max_abs))
            + math.ceil(math.log2(weight_units(self.max_weight)))
            + math.ceil(math.log2(self.max_updates))
        )
        return SUM_BITS - span

    def __post_init__(self) -> None:
        values = (self.max_abs, self.max_weight, self.max_updates)
        if not all(math.isfinite(v) and v > 0 for v in values) or weight_units(self.max_weight) < 1:
            raise TaskError(f"bounds {values} are not all positive numbers", "give each a positive, finite value")
        if self.fraction_bits < 0:
            raise TaskError(
                f"max_abs={self.max_abs:g}, max_weight={self.max_weight:g} and max_updates={self.max_updates} "
                f"need {SUM_BITS - self.fraction_bits} bits, a sum has {SUM_BITS}",
                "lower one of the three",
            )


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """When a round closes. Times are seconds.

    A round closes with `goal` reports at once, or at its `deadline` with at least `minimum`; with fewer it is
    abandoned and tried again, at most `attempts` times. A device keeps its place for `lease` seconds from the
    last sign of progress.

    `confidence` is the probability with which the devices that are asked bring the goal, given how many dropped out
    of former rounds (`rounds.selection`); 0 asks exactly as many as the goal. Reports after a round closed are turned
    away, or with `late="carry"` count in the round after it. `buffered` makes the rounds asynchronous.
    """

    goal: int
    minimum: int = 1
    deadline: float = 600.0
    lease: float = 120.0
    attempts: int = 3
    confidence: float = 0.0
    late: Late = "drop"
    buffered: Buffered | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.goal:
            raise TaskError(f"round plan with goal={self.goal}, minimum={self.minimum}", "give 1 <= minimum <= goal")
        if not (self.deadline > 0 and self.lease > 0 and self.attempts >= 1):
            raise TaskError(
                f"round plan with deadline={self.deadline}, lease={self.lease}, attempts={self.attempts}",
                "give positive values",
            )
        if not 0 <= self.confidence < 1:
            raise TaskError(f"round plan with confidence={self.confidence}", "give 0, or a probability such as 0.95")
        if self.buffered is not None:
            self._check_buffered(self.buffered)

    def _check_buffered(self, buffered: Buffered) -> None:
        if buffered.size != self.goal:
            raise TaskError(
                f"a goal of {self.goal} with a buffer of {buffered.size}", "give the size of the buffer as the goal"
            )
        if self.confidence or self.late != "drop":
            raise TaskError(
                f"buffered round plan with confidence={self.confidence}, late={self.late!r}",
                "leave both out: a buffered round has no places and nobody is late",
            )


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as it travels: names, shapes, dtypes, roles, digests, bounds and plans. Data, never code.

    `arrays` lists every array of the model; those whose role travels make up a version. `extra` lists further
    trees that an update carries beside its delta (control variates and the like). `initial` is the digest of
    version 0, `frozen` that of the arrays that are fixed for the task, `golden` that of a batch with its expected
    result, on which a device proves its code before it trains. `schema` is what every owner's rows must be like;
    `checks` names the task that a check of this schema over all owners is for. `origin` says who published it.
    `schedule` says when rounds open. `stop` ends the task before its last round when a metric no longer improves.
    `subject` is the version that an evaluation measures, `columns` then names its metrics. Only devices of the `cohort`
    get work, if there is one. `serving` says which versions devices serve. `exported` is the digest of the task's plan
    (`shoal.plan`), by which devices train that have neither its code nor torch.
    """

    name: str
    arrays: Mapping[str, ArraySpec]
    rounds: int
    plan: RoundPlan
    seed: int = 0
    kind: Kind = "training"
    local: LocalPlan = LocalPlan()
    aggregator: Component = Component("mean")
    server: Component = Component("sgd")
    bounds: Bounds = Bounds()
    extra: Mapping[str, Mapping[str, ArraySpec]] = field(default_factory=dict[str, Mapping[str, ArraySpec]])
    columns: tuple[str, ...] = ()
    initial: str = ""
    frozen: str = ""
    golden: str = ""
    schema: Mapping[str, RowSchema] = field(default_factory=dict[str, RowSchema])
    checks: str = ""
    origin: Origin = Origin()
    schedule: Schedule = Schedule()
    stop: EarlyStop | None = None
    subject: Subject | None = None
    cohort: Cohort | None = None
    serving: Serving = Serving()
    exported: str = ""

    def __post_init__(self) -> None:
        wellformed = 1 <= len(self.name) <= 64 and all(c.isalnum() or c in "-_." for c in self.name)
        if not wellformed or not self.name.strip("."):
            raise TaskError(f"task name {self.name!r}", "use 1 to 64 letters, digits, dashes, dots and underscores")
        if self.rounds < 1:
            raise TaskError(f"task {self.name!r} with rounds={self.rounds}", "give at least 1")
        if abs(self.seed) >= 1 << SEED_BITS:
            raise TaskError(
                f"task {self.name!r} with seed={self.seed}", f"give one below 2**{SEED_BITS}: browsers read no larger"
            )
        if self.plan.goal > self.bounds.max_updates:
            raise TaskError(
                f"task {self.name!r} wants {self.plan.goal} updates a round, its bounds allow "
                f"{self.bounds.max_updates}",
                "raise bounds.max_updates",
            )
        if self.schedule.opens_rounds and self.plan.buffered is not None:
            raise TaskError(f"task {self.name!r} opens buffered rounds at times", "give a window, or no buffer")
        if "delta" in self.extra:
            raise TaskError(f"task {self.name!r} names an extra tree 'delta'", "give it another name")
        for tree, arrays in self.extra.items():
            staying = sorted(name for name, spec in arrays.items() if not spec.role.travels)
            if staying:
                raise TaskError(f"extra tree {tree!r} has frozen or local arrays {staying}", "these never travel")

    @property
    def travelling(self) -> dict[str, ArraySpec]:
        """Return the arrays that are part of every version, by name."""
        return {name: spec for name, spec in self.arrays.items() if spec.role.travels}

    @property
    def trees(self) -> dict[str, Mapping[str, ArraySpec]]:
        """Return every tree that an update carries: `delta` and the extra ones."""
        return {"delta": self.travelling, **self.extra}
