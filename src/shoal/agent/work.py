"""What an assignment's work gives: an update or a pass of statistics, before it leaves. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shoal.agent.data import OwnerData
from shoal.algorithms import statistics
from shoal.core.errors import TaskError
from shoal.core.task import TaskSpec, weight_units
from shoal.core.tree import Tree
from shoal.core.types import Assignment, Update

PASSES: Mapping[int, tuple[str, ...]] = {
    1: ("count", "total", "minimum", "maximum"),
    2: ("squared distances from the mean", "count of values between minimum and maximum"),
}
"""What each pass of statistics is about, in the owner's words."""


@dataclass(frozen=True, slots=True)
class Result:
    """An update that is ready to leave, and how to say so to its owner."""

    kind: Literal["statistics", "update"]
    update: Update
    what: tuple[str, ...]
    said: str
    norm: float = 0.0


def measure(assignment: Assignment, spec: TaskSpec, so_far: Tree, data: OwnerData) -> Result:
    """Carry out one pass of a statistics task. Raises DataError for columns that the data lacks."""
    if dict(spec.arrays) != statistics.arrays(len(spec.columns)):
        raise TaskError(f"task {spec.name!r} has other arrays than statistics have", "publish it again")
    table = data.measured(spec.columns)
    released = statistics.measure(table, so_far, assignment.round)
    said = (
        f"pass {assignment.round}: {', '.join(PASSES[assignment.round])} of {len(spec.columns)} columns "
        f"over {len(table)} rows"
    )
    return Result("statistics", Update(assignment.id, released, weight_units(len(table))), spec.columns, said)


def trained(assignment: Assignment, update: Update, rows: int) -> Result:
    """Describe a trained update."""
    what = tuple(f"{name} {array.dtype.name} {list(array.shape)}" for name, array in sorted(update.delta.items()))
    length = norm(update.delta)
    said = f"round {assignment.round}: change of {len(what)} arrays, length {length:.4g}, learnt from {rows} rows"
    return Result("update", update, what, said, length)


def norm(tree: Tree) -> float:
    """Return the Euclidean length of the float arrays of a tree."""
    floats = [array.astype(np.float64).ravel() for array in tree.values() if array.dtype.kind == "f"]
    return float(np.sqrt(sum(float(array @ array) for array in floats)))
