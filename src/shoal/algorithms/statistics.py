"""Column statistics over all owners in two passes, without pooling a row.

Pass 1: each owner releases, for each column, the count, the sum, the minimum and the maximum. Pass 2: given the mean
and the range over all owners, the sum of squared distances from the mean and how many values lie strictly between
minimum and maximum (none over all owners: the column has two values). float64 throughout; sums over owners by
`math.fsum`, which rounds once, so neither order nor grouping matters. The two-pass variance does not cancel (Chan,
Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance").
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from shoal.core.check import check_layout, check_names, check_weight
from shoal.core.errors import Abandoned, NoRows, RefusedUpdate
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import Update

Floats = npt.NDArray[np.float64]

NAMES = ("between", "count", "maximum", "minimum", "squares", "total")
PASSES = 2


def arrays(columns: int) -> dict[str, ArraySpec]:
    """Return the arrays of a statistics task over a number of columns."""
    return {name: ArraySpec((columns,), "float64") for name in NAMES}


def nothing(columns: int) -> Tree:
    """Return version 0 of a statistics task: nothing counted yet."""
    return {name: np.zeros(columns, np.float64) for name in NAMES}


def measure(table: Floats, so_far: Tree, number: int) -> Tree:
    """Return what an owner releases in pass `number` (1 or 2) about its `table` [rows, columns].

    What the pass does not ask for is zero, so that each pass adds to what is known (`so_far`). Raises NoRows.
    """
    if len(table) == 0:
        raise NoRows("a table without rows", "give at least one row")
    result = dict(nothing(table.shape[1]))
    if number == 1:
        result["count"] = np.full(table.shape[1], float(len(table)))
        result["total"] = np.array([math.fsum(column) for column in table.T])
        result["minimum"], result["maximum"] = table.min(axis=0), table.max(axis=0)
        return result
    mean = so_far["total"] / so_far["count"]
    result["squares"] = np.array([math.fsum(column) for column in ((table - mean) ** 2).T])
    inside = (table > so_far["minimum"]) & (table < so_far["maximum"])
    result["between"] = inside.sum(axis=0).astype(np.float64)
    return result


@dataclass(slots=True)
class MomentsState:
    """What each owner released, by assignment id."""

    spec: TaskSpec
    rows: list[tuple[str, Tree]] = field(default_factory=list[tuple[str, Tree]])


@dataclass(frozen=True, slots=True)
class Moments:
    """Combines what owners release in one pass: exact sums, smallest minimum, largest maximum.

    The sums are of arrays of any name and shape, so histograms, quantiles and evaluations are combined as well.
    """

    name: ClassVar[str] = "moments"

    def init(self, spec: TaskSpec) -> MomentsState:
        """Start from nothing."""
        return MomentsState(spec)

    def add(self, state: MomentsState, update: Update) -> MomentsState:
        """Keep one owner's release. Its sums may be of any size, so the task's `max_abs` does not apply."""
        check_weight(update.weight, state.spec.bounds)
        if update.extra:
            raise RefusedUpdate(f"statistics with the trees {sorted(update.extra)}", "release nothing beside the delta")
        check_names("delta", state.spec.travelling, update.delta)
        for name, array in update.delta.items():
            check_layout(name, state.spec.travelling[name], array.dtype.name, array.shape)
            if not np.isfinite(array).all():
                raise RefusedUpdate(f"statistic {name!r} holds NaN or infinity", "check the owner's columns")
        return MomentsState(state.spec, [*state.rows, (update.assignment, update.delta)])

    def merge(self, left: MomentsState, right: MomentsState) -> MomentsState:
        """Keep the releases of both."""
        return MomentsState(left.spec, [*left.rows, *right.rows])

    def finish(self, state: MomentsState) -> Mapping[str, Tree]:
        """Reduce over owners."""
        if not state.rows:
            raise Abandoned("no owner released statistics", "start at least one owner")
        released = [tree for _, tree in sorted(state.rows, key=lambda row: row[0])]
        reduce = {"minimum": np.min, "maximum": np.max}
        result: dict[str, Floats] = {}
        for name, array in released[0].items():
            rows = np.stack([tree[name] for tree in released])
            if name in reduce:
                result[name] = reduce[name](rows, axis=0)
            else:
                sums = [math.fsum(column) for column in rows.reshape(len(rows), -1).T]
                result[name] = np.array(sums, np.float64).reshape(array.shape)
        return {"delta": result}


def _unasked() -> Floats:
    return np.zeros((0, 0))


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """The result over all owners, one entry a column. `deviation` is unbiased (n - 1); `binary`: two values only.

    Where they were asked for: `edges` [columns, bins + 1] and `counts` [columns, bins] of a histogram, `quantiles`
    [columns, number asked]; otherwise these are empty.
    """

    columns: tuple[str, ...]
    count: Floats
    mean: Floats
    deviation: Floats
    minimum: Floats
    maximum: Floats
    binary: npt.NDArray[np.bool_]
    edges: Floats = field(default_factory=_unasked)
    counts: Floats = field(default_factory=_unasked)
    quantiles: Floats = field(default_factory=_unasked)

    @property
    def variance(self) -> Floats:
        """The unbiased variance of each column."""
        return self.deviation**2


def result(columns: Sequence[str], tree: Tree) -> ColumnStatistics:
    """Read the last version of a statistics task."""
    count = tree["count"]
    if (count < 2).any():
        raise Abandoned(f"statistics over {int(count.min())} rows", "a deviation needs at least two rows")
    constant = tree["minimum"] == tree["maximum"]  # a rounded mean would leave it a deviation of one last bit
    return ColumnStatistics(
        tuple(columns),
        count,
        np.where(constant, tree["minimum"], tree["total"] / count),
        np.where(constant, 0.0, np.sqrt(tree["squares"] / (count - 1))),
        tree["minimum"],
        tree["maximum"],
        (tree["between"] == 0) & (tree["maximum"] > tree["minimum"]),
    )
