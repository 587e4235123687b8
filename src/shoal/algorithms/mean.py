"""The weighted mean of federated averaging, exact in fixed point.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data" (arXiv:1602.05629):
    delta = sum_c weight_c * delta_c / sum_c weight_c
Values times weights are rounded once to int64 with the task's number of fraction bits and summed as integers.
Integer sums are associative: the result has the same bits in whatever order, and on however many servers, the
updates arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from shoal.core.check import check_trees
from shoal.core.errors import Abandoned, RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Update

BLOCK = 1 << 15
"""Elements handled at once, so that the float64 products stay in the processor's cache."""

SMALL = 2.0**51
SHIFT = np.float64(1.5 * 2.0**52)
"""Float64 numbers of this size are integers: the sum with one below SMALL is rounded as by rint, half to even, and
holds the result in its lowest bits. Processors convert vectors of float64 to int64 slowly, if at all."""

SHIFT_BITS = SHIFT.view(np.int64)

Sums = dict[str, dict[str, npt.NDArray[np.int64]]]


@dataclass(slots=True)
class MeanState:
    """Running sums by tree and name in units of 2**-fraction_bits (counters: maxima), and the weight so far."""

    spec: TaskSpec
    sums: Sums
    weight: int = 0
    updates: int = 0
    # what is asked of the spec for every update
    trees: Mapping[str, Mapping[str, ArraySpec]] = field(init=False, repr=False)
    unit: float = field(init=False, repr=False)
    block: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.trees, self.unit = self.spec.trees, 2.0**self.spec.bounds.fraction_bits
        self.block = min(BLOCK, max((a.size for arrays in self.trees.values() for a in arrays.values()), default=0))


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
        bounds, given = state.spec.bounds, update.trees
        check_trees(state.trees, update, bounds)
        if state.updates >= bounds.max_updates:
            raise RefusedUpdate(f"update {state.updates + 1} of a sum", f"the task's bounds allow {bounds.max_updates}")
        work = _Workspace.of(state, update.weight)
        for tree, arrays in state.trees.items():
            for name, array in arrays.items():
                _accumulate(state.sums[tree][name], given[tree][name], array.role, work)
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


@dataclass(frozen=True, slots=True)
class _Workspace:
    """How values become integers, and memory for a block of them: reserved once, not for every block."""

    scale: np.float64
    small: bool
    products: npt.NDArray[np.float64]
    integers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, state: MeanState, weight: int) -> "_Workspace":
        """Return that for one update of a weight whose values are checked."""
        scale = np.float64(float(weight) * state.unit)
        small = bool(scale * state.spec.bounds.max_abs < SMALL)
        products = np.empty(state.block)
        return cls(scale, small, products, products.view(np.int64) if small else np.empty(products.shape, np.int64))

    def rounded(self, values: Array) -> npt.NDArray[np.int64]:
        """Return values times scale, rounded to integers; the next call reuses the memory."""
        products, integers = self.products[: values.size], self.integers[: values.size]
        np.multiply(values, self.scale, out=products)
        if self.small:
            np.add(products, SHIFT, out=products)
            np.subtract(integers, SHIFT_BITS, out=integers)
        else:
            np.copyto(integers, np.rint(products, out=products), casting="unsafe")
        return integers


def _accumulate(total: npt.NDArray[np.int64], values: Array, role: Role, work: _Workspace) -> None:
    if role is Role.COUNTER:
        np.maximum(total, values, out=total)
        return
    into, flat = total.reshape(-1), np.ascontiguousarray(values).reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = into[start : start + BLOCK]
        np.add(block, work.rounded(flat[start : start + BLOCK]), out=block)
