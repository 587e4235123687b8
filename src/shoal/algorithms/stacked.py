"""Updates of many clients as one tree, and folding them all at once.

Arrays have a leading axis of clients: deltas_CD stands for C clients and D elements. The fixed-point sums are those
of `algorithms.mean`, row by row: folding a stack gives the bits that adding its updates one by one would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.algorithms.aggregator import Aggregator
from shoal.algorithms.fednova import NormalisedMean
from shoal.algorithms.mean import BLOCK, ExactMean, MeanState
from shoal.algorithms.qfedavg import FairMean
from shoal.core.check import check_layout, check_names, check_update
from shoal.core.errors import RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, TaskSpec, weight_units
from shoal.core.tree import Array, Tree
from shoal.core.types import Update

EXACT = 2.0**52
"""Bound of sums of integers that float64 surely holds."""

SUMMING = (ExactMean, NormalisedMean, FairMean)
"""Aggregators whose `add` is that of the mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """The updates of C clients: `delta` and the `extra` trees hold arrays [C, ...], `weights` [C] counts 2**-16."""

    assignments: Sequence[str]
    delta: Tree
    weights: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    extra: Mapping[str, Tree] = field(default_factory=dict[str, Tree])

    @property
    def trees(self) -> dict[str, Tree]:
        """Return every tree of the stack: `delta` and the extra ones."""
        return {"delta": self.delta, **self.extra}

    def __len__(self) -> int:
        return len(self.assignments)

    def update(self, index: int) -> Update:
        """Return one client's update."""
        trees = {tree: {name: array[index] for name, array in arrays.items()} for tree, arrays in self.trees.items()}
        delta = trees.pop("delta")
        metrics = {"loss": float(self.losses[index])}
        return Update(self.assignments[index], delta, int(self.weights[index]), metrics, trees)

    def take(self, indices: Sequence[int]) -> "Stacked":
        """Return the stack of some of the clients."""
        rows = list(indices)
        trees = {tree: {name: array[rows] for name, array in arrays.items()} for tree, arrays in self.trees.items()}
        delta = trees.pop("delta")
        return Stacked([self.assignments[i] for i in rows], delta, self.weights[rows], self.losses[rows], trees)


def stack(updates: Sequence[Update]) -> Stacked:
    """Return updates of one task as a stack."""
    first = updates[0]
    trees = {
        tree: {name: np.stack([update.trees[tree][name] for update in updates]) for name in arrays}
        for tree, arrays in first.trees.items()
    }
    return Stacked(
        [update.assignment for update in updates],
        trees.pop("delta"),
        np.array([update.weight for update in updates], np.int64),
        np.array([update.metrics["loss"] for update in updates], np.float64),
        trees,
    )


def refusals(spec: TaskSpec, stacked: Stacked) -> dict[int, str]:
    """Return, by position, why the task takes some of the updates not: `check_update` for all of them at once."""
    suspects = _suspects(spec, stacked)
    return {int(index): reason for index in np.flatnonzero(suspects) if (reason := _reason(spec, stacked, int(index)))}


def fold(aggregator: Aggregator[Any], state: Any, stacked: Stacked) -> Any:
    """Count all updates of a stack in; those that the task refuses must have been taken out (`refusals`).

    Any aggregator will do; those that sum as the mean does take all clients in one operation an array.
    """
    if len(stacked) == 0:
        return state
    if isinstance(aggregator, SUMMING):
        return _sum(state, stacked)
    for index in range(len(stacked)):
        state = aggregator.add(state, stacked.update(index))
    return state


def _suspects(spec: TaskSpec, stacked: Stacked) -> npt.NDArray[np.bool_]:
    suspects = (stacked.weights < 1) | (stacked.weights > weight_units(spec.bounds.max_weight))
    for tree, arrays in spec.trees.items():
        given = stacked.trees[tree]
        check_names(tree, arrays, given)
        for name, array in arrays.items():
            check_layout(name, array, given[name].dtype.name, given[name].shape[1:])
            suspects |= _outside(given[name].reshape(len(stacked), array.size), array, spec.bounds.max_abs)
    return np.asarray(suspects)


def _outside(values_CD: Array, spec: ArraySpec, most: float) -> npt.NDArray[np.bool_]:
    clients, size = values_CD.shape
    if size == 0:
        return np.zeros(clients, np.bool_)
    least = 0.0 if spec.role is Role.COUNTER else -most
    # over all first, which is one pass without a row's overhead; NaN fails every comparison
    highest = np.inf if spec.role is Role.COUNTER else most
    if values_CD.min() >= least and values_CD.max() <= highest:
        return np.zeros(clients, np.bool_)
    return np.asarray(~((values_CD.min(axis=1) >= least) & (values_CD.max(axis=1) <= highest)))


def _reason(spec: TaskSpec, stacked: Stacked, index: int) -> str:
    try:
        check_update(spec, stacked.update(index))
    except RefusedUpdate as error:
        return str(error)
    return ""


def _sum(state: MeanState, stacked: Stacked) -> MeanState:
    bounds = state.spec.bounds
    if state.updates + len(stacked) > bounds.max_updates:
        raise RefusedUpdate(
            f"a sum of {state.updates + len(stacked)} updates", f"the task's bounds allow {bounds.max_updates}"
        )
    scales_C = stacked.weights.astype(np.float64) * 2.0**bounds.fraction_bits
    small = bounds.max_abs * float(scales_C.sum()) < EXACT
    for tree, arrays in state.spec.trees.items():
        for name, array in arrays.items():
            values_CD = stacked.trees[tree][name].reshape(len(stacked), array.size)
            _accumulate(state.sums[tree][name].reshape(-1), values_CD, array.role, scales_C, small)
    state.weight += int(stacked.weights.sum())
    state.updates += len(stacked)
    return state


def _accumulate(
    total_D: npt.NDArray[np.int64], values_CD: Array, role: Role, scales_C: npt.NDArray[np.float64], small: bool
) -> None:
    if role is Role.COUNTER:
        np.maximum(total_D, values_CD.max(axis=0), out=total_D)
        return
    rows = max(1, BLOCK // max(1, values_CD.shape[1]))
    for start in range(0, len(values_CD), rows):
        product = values_CD[start : start + rows] * scales_C[start : start + rows, None]
        np.rint(product, out=product)
        # integers that float64 holds are summed without an error, and faster than converted ones
        total_D += product.sum(axis=0).astype(np.int64) if small else product.astype(np.int64).sum(axis=0)
