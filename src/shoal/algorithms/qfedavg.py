"""q-FedAvg: Li et al. 2020, "Fair Resource Allocation in Federated Learning" (arXiv:1905.10497), algorithm 2.
The higher its loss F_k, the more a client counts; with q = 0 each counts once. With L = 1/lr of the local plan:
    D_k = F_k(x)^q * L * (x - y_k),    h_k = q * F_k(x)^(q-1) * ||L * (x - y_k)||^2 + L * F_k(x)^q
    x <- x - sum_k D_k / sum_k h_k
Both sums are divided by L here. F_k(x)^q is the update's weight, so that small losses lose no digits of a fixed-point
sum: the update is x <- x + mean(y_k - x) / mean(1 + q * L * ||y_k - x||^2 / F_k(x)), both means weighted by F_k(x)^q.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from shoal.algorithms.fednova import scaled
from shoal.algorithms.mean import ExactMean, MeanState
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.rule import LocalRule, Trees, Work, trainable_specs
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import TaskError
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, LocalPlan, TaskSpec, weight_units
from shoal.core.tree import Tree
from shoal.core.types import Update

DENOMINATOR = "denominator"
VALUE = "value"

UNIT = float(1 << 10)
"""The weight of a loss of one: weights from 2**-26 up to 2**10 of it can be told apart."""

LEAST_LOSS = 1e-10
"""Added to every loss, as in the authors' code: a loss of zero has no power below zero."""


@dataclass(frozen=True, slots=True)
class Fair(LocalRule):
    """Updates weighted by a power of the loss, with the part of the denominator beside them."""

    name: ClassVar[str] = "qfedavg"
    measures_start: ClassVar[bool] = True
    q: float = 1.0

    def check(self, plan: LocalPlan) -> None:
        """Raise TaskError for a negative q, and without a learning rate: L would be unknown."""
        if not self.q >= 0:
            raise TaskError(f"q-FedAvg with q={self.q}", "give a number that is not negative")
        if not float(plan.optimizer.options.get("lr") or 0.0) > 0:
            raise TaskError("q-FedAvg without a learning rate", "give the local optimizer a positive lr")

    def extra_trees(self, arrays: Mapping[str, ArraySpec]) -> Mapping[str, Mapping[str, ArraySpec]]:
        """Return one number: 1 + q * L * ||y_k - x||^2 / F_k(x)."""
        del arrays
        return {DENOMINATOR: {VALUE: ArraySpec((), "float64", Role.BUFFER)}}

    def finish(self, work: Work) -> tuple[Update, Trees]:
        """Return the update with its weight and denominator; NaN, which is refused by name, for a negative loss."""
        loss, delta = work.start_loss + LEAST_LOSS, work.update.delta
        squared = sum(float(np.square(delta[name], dtype=np.float64).sum()) for name in trainable_specs(work.arrays))
        part = 1.0 + self.q * squared / (float(work.plan.optimizer.options["lr"] or 0.0) * loss)
        denominator = np.array(part if loss > 0 else np.nan)
        weight = max(1, weight_units(UNIT * loss**self.q)) if loss > 0 else 1
        return replace(work.update, weight=weight, extra={DENOMINATOR: {VALUE: denominator}}), {}


@dataclass(frozen=True, slots=True)
class FairMean:
    """The mean of the updates over the mean of their denominators."""

    name: ClassVar[str] = "fair_mean"

    def init(self, spec: TaskSpec) -> MeanState:
        """Start from nothing. Raises TaskError for a task whose updates bring no denominator."""
        if DENOMINATOR not in spec.extra:
            raise TaskError(f"task {spec.name!r} weighs updates by their loss", "give it the strategy shoal.qfedavg()")
        return ExactMean().init(spec)

    def add(self, state: MeanState, update: Update) -> MeanState:
        """Count one update in, in place."""
        return ExactMean().add(state, update)

    def merge(self, left: MeanState, right: MeanState) -> MeanState:
        """Add the right sums to the left ones, in place."""
        return ExactMean().merge(left, right)

    def finish(self, state: MeanState) -> Mapping[str, Tree]:
        """Return the quotient for trainable arrays, the mean for the others."""
        trees = ExactMean().finish(state)
        share = 1.0 / np.maximum(1.0, trees[DENOMINATOR][VALUE])  # each is at least 1, unless a device lies
        arrays = state.spec.arrays
        return {"delta": {name: scaled(arrays[name], array, share) for name, array in trees["delta"].items()}}


def qfedavg(*, q: float = 1.0, lr: float = 1.0) -> Strategy:
    """Weigh clients by the power `q` of their loss; `lr` scales the step of the global model."""
    return Strategy("qfedavg", FairMean(), SGD(lr), rule=Fair(q))
