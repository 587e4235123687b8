"""Counts of an owner's rows between bounds that a task states: a histogram, or one pass toward quantiles."""

from shoal.agent.data import OwnerData
from shoal.agent.work import Result
from shoal.algorithms import histogram, quantiles
from shoal.core.errors import TaskError
from shoal.core.task import ArraySpec, TaskSpec, weight_units
from shoal.core.tree import Tree
from shoal.core.types import Assignment, Update


def count(assignment: Assignment, spec: TaskSpec, so_far: Tree, data: OwnerData) -> Result:
    """Carry out one pass of a task of the kind "histogram" or "quantiles".

    Raises DataError for columns that the data lacks, TaskError for a task whose arrays are others.
    """
    if dict(spec.arrays) != _arrays(spec) or not 1 <= assignment.round <= spec.rounds:
        raise TaskError(f"task {spec.name!r} has other arrays than {spec.kind} have", "publish it again")
    table = data.measured(spec.columns)
    if spec.kind == "histogram":
        released = histogram.measure(table, histogram.begin(so_far["edges"]))
        what = f"counts in {so_far['counts'].shape[1]} bins"
    else:
        released = quantiles.measure(table, so_far, assignment.round)
        what = f"counts up to {so_far['counts'][0, 0].size} bounds"
    said = f"pass {assignment.round}: {what} of {len(spec.columns)} columns over {len(table)} rows"
    return Result("statistics", Update(assignment.id, released, weight_units(len(table))), spec.columns, said)


def _arrays(spec: TaskSpec) -> dict[str, ArraySpec]:
    shape = spec.arrays["counts"].shape if "counts" in spec.arrays else ()
    if spec.kind == "histogram":
        return histogram.arrays(len(spec.columns), shape[-1] if shape else 0)
    return quantiles.arrays(len(spec.columns), shape[2] if len(shape) == 4 else 0, spec.rounds)
