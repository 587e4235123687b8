"""The weighted mean of federated averaging, exact in fixed point.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data" (arXiv:1602.05629):
    delta = sum_c weight_c * delta_c / sum_c weight_c
Values times weights are rounded once to int64 with the task's number of fraction bits and summed as integers.
Integer sums are associative: the result has the same bits in whatever order, and on however many servers, the
updates arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from shoal.core.check import check_update
from shoal.core.errors import Abandoned, RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Update

BLOCK = 1 << 16
"""Elements handled at once, so that the float64 products stay in the processor's cache."""

Sums = dict[str, dict[str, npt.NDArray[np.int64]]]


@dataclass(slots=True)
class MeanState:
    """Running sums by tree and name in units of 2**-fraction_bits (counters: maxima), and the weight so far."""

    spec: TaskSpec
    sums: Sums
    weight: int = 0
    updates: int = 0


@dataclass(frozen=True, slots=True)
class ExactMean:
    """The example-weighted mean of trainable arrays and buffers; the maximum of counters."""

    name: ClassVar[str] = "mean"

    def init(self, spec: TaskSpec) -> MeanState:
        """Start from nothing."""
        sums = {
            tree: {name: np.zeros(array.shape, np.int64) for name, array in arrays.items()}
            for tree, arrays in spec.trees.items()
        }
        return MeanState(spec, sums)

    def add(self, state: MeanState, update: Update) -> MeanState:
        """Count one update in, in place."""
        spec = state.spec
        check_update(spec, update)
        if state.updates >= spec.bounds.max_updates:
            raise RefusedUpdate(
                f"update {state.updates + 1} of a sum", f"the task's bounds allow {spec.bounds.max_updates}"
            )
        scale = float(update.weight) * 2.0**spec.bounds.fraction_bits
        for tree, arrays in spec.trees.items():
            for name, array in arrays.items():
                _accumulate(state.sums[tree][name], update.trees[tree][name], array.role, scale)
        state.weight += update.weight
        state.updates += 1
        return state

    def merge(self, left: MeanState, right: MeanState) -> MeanState:
        """Add the right sums to the left ones, in place. Raises RefusedUpdate beyond the task's `max_updates`."""
        most = left.spec.bounds.max_updates
        if left.updates + right.updates > most:
            raise RefusedUpdate(
                f"a sum of {left.updates} updates and one of {right.updates}", f"the task's bounds allow {most}"
            )
        for tree, arrays in left.spec.trees.items():
            for name, array in arrays.items():
                into, other = left.sums[tree][name], right.sums[tree][name]
                combine = np.maximum if array.role is Role.COUNTER else np.add
                combine(into, other, out=into)
        left.weight += right.weight
        left.updates += right.updates
        return left

    def finish(self, state: MeanState) -> Mapping[str, Tree]:
        """Divide the sums by the weight."""
        if state.updates == 0:
            raise Abandoned("no update to average", "close a round with at least one report")
        scale = float(state.weight) * 2.0**state.spec.bounds.fraction_bits
        return {
            tree: {
                name: state.sums[tree][name]
                if array.role is Role.COUNTER
                else np.asarray(state.sums[tree][name] / scale)
                for name, array in arrays.items()
            }
            for tree, arrays in state.spec.trees.items()
        }


def _accumulate(total: npt.NDArray[np.int64], values: Array, role: Role, scale: float) -> None:
    if role is Role.COUNTER:
        np.maximum(total, values, out=total)
        return
    into, flat = total.reshape(-1), np.ascontiguousarray(values).reshape(-1)
    for start in range(0, flat.size, BLOCK):
        product = flat[start : start + BLOCK] * np.float64(scale)
        into[start : start + BLOCK] += np.rint(product, out=product).astype(np.int64)
