"""What an assignment's work gives: an update or a pass of statistics, before it leaves. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shoal.agent.data import OwnerData
from shoal.algorithms import statistics
from shoal.core.errors import TaskError
from shoal.core.origin import Origin
from shoal.core.schema import check_rows, columns, empty_batch, ranges
from shoal.core.task import TaskSpec, weight_units
from shoal.core.tree import Tree
from shoal.core.types import Assignment, Update

PASSES: Mapping[int, tuple[str, ...]] = {
    1: ("count", "total", "minimum", "maximum"),
    2: ("squared distances from the mean", "count of values between minimum and maximum"),
}
"""What each pass of statistics is about, in the owner's words."""


BLOCK = 1 << 16
"""Elements that are widened to float64 at once."""

HOLDOUT = "holdout_"
"""What the names of metrics begin with that were measured on rows kept out of training."""


@dataclass(frozen=True, slots=True)
class Result:
    """An update that is ready to leave, and how to say so to its owner."""

    kind: Literal["statistics", "update", "evaluation"]
    update: Update
    what: tuple[str, ...]
    said: str
    norm: float = 0.0
    origin: Origin | None = None


def check(assignment: Assignment, spec: TaskSpec, data: OwnerData) -> Result:
    """Compare the rows with a task's schema; what is released is their number and their ranges.

    Raises SchemaMismatch when they are not what the task asks for.
    """
    if not spec.schema or spec.columns != columns(spec.schema):
        raise TaskError(f"task {spec.name!r} checks other columns than its schema has", "publish it again")
    rows = data.examples(empty_batch(spec.schema))
    check_rows(spec.schema, rows, data.names)
    low, high = ranges(spec.schema, rows)
    count = np.full(len(spec.columns), float(data.rows))
    released = {**statistics.nothing(len(spec.columns)), "count": count, "minimum": low, "maximum": high}
    said = f"check: count, minimum, maximum of {len(spec.columns)} columns over {data.rows} rows"
    return Result("statistics", Update(assignment.id, released, weight_units(data.rows)), spec.columns, said)


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


def trained(assignment: Assignment, update: Update, rows: int, origin: Origin | None = None) -> Result:
    """Describe a trained update, and what goes with it."""
    beside = {f"{tree}/{name}": array for tree, arrays in update.extra.items() for name, array in arrays.items()}
    leaving = [*sorted(update.delta.items()), *sorted(beside.items())]
    arrays = [f"{name} {array.dtype.name} {list(array.shape)}" for name, array in leaving]
    measured = [f"metric {name}" for name in sorted(update.metrics) if name.startswith(HOLDOUT)]
    told = (
        [] if origin is None else ["versions", "digest of the code", *(["digest of the rows"] if origin.data else [])]
    )
    length = norm(update.delta)
    said = (
        f"round {assignment.round}: change of {len(update.delta)} arrays, length {length:.4g}, learnt from {rows} rows"
    )
    also = f"; also {', '.join([*sorted(update.extra), *measured, *told])}" if update.extra or measured or told else ""
    return Result("update", update, (*arrays, *measured, *told), said + also, length, origin)


def norm(tree: Tree) -> float:
    """Return the Euclidean length of the float arrays of a tree."""
    floats = [array.reshape(-1) for array in tree.values() if array.dtype.kind == "f"]
    parts = (flat[start : start + BLOCK].astype(np.float64) for flat in floats for start in range(0, flat.size, BLOCK))
    return float(np.sqrt(sum(float(part @ part) for part in parts)))
