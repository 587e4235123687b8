"""What a researcher writes, and what becomes of it: a Task compiles to a TaskSpec and trees of arrays."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from shoal.algorithms.fedavg import fedavg
from shoal.algorithms.participation import check_participation
from shoal.algorithms.registry import component
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import CodeMismatch, NotFinite, TaskError
from shoal.core.origin import Origin
from shoal.core.plan import EarlyStop
from shoal.core.roles import Role
from shoal.core.schedule import Schedule
from shoal.core.seeds import derive
from shoal.core.task import ArraySpec, Bounds, LocalPlan, RoundPlan, TaskSpec
from shoal.core.tree import Layered, Tree, digest
from shoal.train.arrays import describe, load_arrays, local_roles, names_with, read_arrays, tensor
from shoal.train.data import columns
from shoal.train.golden import compare, differences, golden_step, outcome, results, section, synthetic_batch
from shoal.train.initial import started
from shoal.train.objective import USER_ERRORS, Measure, objective
from shoal.train.optimizer import check_optimizer
from shoal.train.probe import probe
from shoal.train.provenance import code_digest, environment
from shoal.train.rows import row_schema


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A model with its loss, and how it is to be trained.

    `loss` is `loss(output, target)` on batches of x and y, or `loss(model, batch)` (recognised by the name of its
    first parameter) on dicts of tensors; `metrics` likewise. `example` is one batch, (x, y) or a dict: the model is
    tried on it before it is published. `roles` overrides, by glob patterns on array names, what arrays are for:
    parameters are trainable (frozen without requires_grad), float buffers are averaged, integer buffers are counters,
    truth values and bytes are frozen; buffers that are not persistent do not count.

    `initial` is what to start from instead of the model's own numbers: a mapping of arrays (a state dict), a
    safetensors file, or, when published through a coordinator, an earlier run, (run, version) or "TASK@VERSION".
    `test` holds rows of the researcher's own, as (x, y) or a dict: they stay here, and versions are evaluated on them.
    `ranges` declares (low, high) for batch arrays by name; every owner's rows are checked against that.
    """

    name: str
    model: nn.Module
    loss: Measure
    metrics: Mapping[str, Measure] = field(default_factory=dict[str, Measure])
    local: LocalPlan = LocalPlan()
    strategy: Strategy = field(default_factory=fedavg)
    example: Any = None
    roles: Mapping[str, Role | str] = field(default_factory=dict[str, Role | str])
    bounds: Bounds = Bounds()
    initial: Any = None
    test: Any = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Strategy):
            raise TaskError(
                f"task {self.name!r} with the strategy {self.strategy!r}",
                "give one that a function made, such as shoal.fedavg(); shoal.strategies() lists them",
            )

    @property
    def plan(self) -> LocalPlan:
        """The local plan with what the strategy asks of it."""
        proximal, rule = self.strategy.proximal, self.strategy.rule
        return replace(
            self.local,
            proximal=self.local.proximal if proximal is None else proximal,
            rule=None if rule is None else component(rule),
        )

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """The layout and role of every array of the model, `roles` overruling what the strategy lets stay here."""
        return describe(self.model, {**local_roles(self.model, self.strategy.staying), **self.roles})


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTask:
    """A task as it is published: the spec, version 0, the frozen arrays, and a step that proves an owner's code."""

    spec: TaskSpec
    initial: Tree
    frozen: Tree
    golden: Tree


def compile_task(
    task: Task,
    *,
    rounds: int,
    plan: RoundPlan,
    seed: int = 0,
    stop: EarlyStop | None = None,
    schedule: Schedule = Schedule(),  # noqa: B008  (it is frozen)
) -> CompiledTask:
    """Try a task on its example and return its plain-data form.

    `bounds.max_updates` becomes the power of two that `plan.goal` needs, which leaves most bits to the sums. A
    strategy with buffered rounds makes the plan buffered; its goal is then the size of the buffer.
    Raises TaskError (BroadcastingLoss, UnsupportedArray, NotFinite, ...) when it cannot be trained as it is, and
    ConfigurationError for an unknown optimizer or option, SchemaMismatch when example or test rows are not what
    `ranges` declares.
    """
    task = started(task)
    plan = plan if task.strategy.buffered is None else replace(plan, buffered=task.strategy.buffered)
    arrays = task.arrays
    initial = read_arrays(task.model, (name for name, spec in arrays.items() if spec.role.travels))
    if not any(spec.role is Role.TRAINABLE for spec in arrays.values()):
        raise TaskError(f"task {task.name!r} has no trainable array", "give a model with parameters to train")
    frozen = read_arrays(task.model, names_with(arrays, Role.FROZEN))
    rule = task.strategy.rule
    if rule is not None:
        check_participation(task.strategy)
        rule.check(task.plan)
    golden = _make_golden(task, seed)
    schema = row_schema(task)
    spec = TaskSpec(
        name=task.name,
        arrays=arrays,
        rounds=rounds,
        plan=plan,
        seed=seed,
        local=task.plan,
        aggregator=component(task.strategy.aggregator),
        server=component(task.strategy.server),
        extra={} if rule is None else rule.extra_trees(arrays),
        bounds=replace(task.bounds, max_updates=1 << (plan.goal - 1).bit_length()),
        initial=digest(initial),
        frozen=digest(frozen),
        golden=digest(golden),
        schema=schema,
        origin=Origin(code=code_digest(task), environment=environment()),
        stop=stop,
        schedule=schedule,
    )
    return CompiledTask(spec, initial, frozen, golden)


def check_code(task: Task, spec: TaskSpec, initial: Tree, frozen: Tree, golden: Tree) -> None:
    """Prove that `task`, an owner's installed code, is the model that `spec` describes.

    Raises CodeMismatch when arrays differ in name, shape, dtype or role, or the golden step gives another loss or
    another change.
    """
    arrays = task.arrays
    found = list(differences(spec.arrays, arrays))
    if found:
        raise CodeMismatch("; ".join(found), f"install the code that task {spec.name!r} was published with")
    model = copy.deepcopy(task.model)
    load_arrays(model, Layered(section(golden, "local"), frozen, initial))
    batch = section(golden, "batch")
    try:
        compare(golden, outcome(model, objective(task.loss), spec.local.optimizer, arrays, batch, initial))
    except USER_ERRORS as error:
        raise CodeMismatch(
            f"the golden step fails: {error}", f"install the code that task {spec.name!r} was published with"
        ) from error


def _make_golden(task: Task, seed: int) -> Tree:
    if task.example is None:
        raise TaskError(f"task {task.name!r} has no example", "give one batch: Task(..., example=(x, y))")
    check_optimizer(task.plan.optimizer)
    example = columns(task.example)
    probe(copy.deepcopy(task.model), task.loss, {name: tensor(array) for name, array in example.items()})
    batch = synthetic_batch(example, derive(seed, task.name, "golden"))
    arrays = task.arrays
    try:
        golden = golden_step(copy.deepcopy(task.model), objective(task.loss), task.plan.optimizer, arrays, batch)
    except USER_ERRORS as error:
        raise TaskError(
            f"one step on random numbers of the example's kind fails: {error}", "correct the loss or the optimizer"
        ) from error
    _check_finite(golden)
    return golden


def _check_finite(golden: Tree) -> None:
    wrong = [name for name in results(golden) if not np.isfinite(golden[name]).all()]
    if wrong:
        raise NotFinite(
            f"one step on random numbers of the example's kind gives NaN or infinity in {wrong}",
            "lower the learning rate, or give an example whose signs and range are those of the data",
        )
