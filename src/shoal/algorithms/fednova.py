"""FedNova: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization"
(arXiv:2007.07481). Clients that take more steps no longer count for more:
    d_i = delta_i / tau_i,    x <- x + lr * tau_eff * sum_i p_i d_i,    tau_eff = sum_i p_i tau_i
with p_i the share of the examples. tau_i is how far SGD goes on gradients of one, in units of its learning rate: the
paper's ||a_i||_1. It is the number of steps for plain SGD; momentum, the proximal term and schedules change it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from shoal.algorithms.mean import ExactMean, MeanState
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.rule import LocalRule, Trees, Work
from shoal.algorithms.steps import check_steps, effective_steps
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import TaskError
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, LocalPlan, TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Update

STEPS = "steps"
COUNT = "count"


@dataclass(frozen=True, slots=True)
class Normalised(LocalRule):
    """Updates per step, with the number of steps beside them."""

    name: ClassVar[str] = "fednova"

    def check(self, plan: LocalPlan) -> None:
        """Raise TaskError unless steps are sums of gradients."""
        check_steps(plan, "FedNova", momentum=True)

    def extra_trees(self, arrays: Mapping[str, ArraySpec]) -> Mapping[str, Mapping[str, ArraySpec]]:
        """Return one number: the steps."""
        del arrays
        return {STEPS: {COUNT: ArraySpec((), "float64", Role.BUFFER)}}

    def finish(self, work: Work) -> tuple[Update, Trees]:
        """Return d_i, and tau_i as the extra tree."""
        steps = effective_steps(work.plan, work.steps)
        part = 1.0 / steps if steps else 0.0  # a schedule may have ended at a learning rate of zero
        delta = {name: scaled(work.arrays[name], array, part) for name, array in work.update.delta.items()}
        return replace(work.update, delta=delta, extra={STEPS: {COUNT: np.array(steps)}}), {}


@dataclass(frozen=True, slots=True)
class NormalisedMean:
    """The mean of updates per step, times the mean number of steps."""

    name: ClassVar[str] = "normalised_mean"

    def init(self, spec: TaskSpec) -> MeanState:
        """Start from nothing. Raises TaskError for a task whose updates do not tell their steps."""
        if STEPS not in spec.extra:
            raise TaskError(f"task {spec.name!r} averages updates per step", "give it the strategy shoal.fednova()")
        return ExactMean().init(spec)

    def add(self, state: MeanState, update: Update) -> MeanState:
        """Count one update in, in place."""
        return ExactMean().add(state, update)

    def merge(self, left: MeanState, right: MeanState) -> MeanState:
        """Add the right sums to the left ones, in place."""
        return ExactMean().merge(left, right)

    def finish(self, state: MeanState) -> Mapping[str, Tree]:
        """Return tau_eff * sum_i p_i d_i for trainable arrays, the mean for the others."""
        trees = ExactMean().finish(state)
        steps = trees[STEPS][COUNT]
        arrays = state.spec.arrays
        return {"delta": {name: scaled(arrays[name], array, steps) for name, array in trees["delta"].items()}}


def fednova(*, lr: float = 1.0) -> Strategy:
    """Average updates per step; `lr` scales the step of the global model."""
    return Strategy("fednova", NormalisedMean(), SGD(lr), rule=Normalised())


def scaled(spec: ArraySpec, array: Array, factor: Array | float) -> Array:
    """Return a trainable array times a number, any other as it is."""
    return np.asarray(array * factor, array.dtype) if spec.role is Role.TRAINABLE else array
