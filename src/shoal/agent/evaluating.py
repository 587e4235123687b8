"""What an evaluation's work gives: the metrics of a version on rows that are held out, and no update."""

from collections.abc import Mapping

from shoal.agent.work import Result
from shoal.algorithms import evaluation
from shoal.core.errors import DataError, NotPermitted, TaskError
from shoal.core.subject import Subject
from shoal.core.task import TaskSpec, weight_units
from shoal.core.types import Assignment, Update


def subject(spec: TaskSpec, held: int) -> Subject:
    """Return what a task of the kind "evaluation" measures.

    Raises TaskError when it says not what, NotPermitted when no rows are held out.
    """
    if spec.subject is None or dict(spec.arrays) != evaluation.arrays(len(spec.columns)):
        raise TaskError(f"task {spec.name!r} names no version, or other arrays than its metrics", "publish it again")
    if held == 0:
        raise NotPermitted(f"metrics for task {spec.name!r}", "no rows are held out here: start with --holdout 0.2")
    return spec.subject


def measured(assignment: Assignment, spec: TaskSpec, values: Mapping[str, float], rows: int) -> Result:
    """Describe the metrics that a task asks for. Raises DataError for one that the owner's code does not measure."""
    for name in spec.columns:
        if name not in values:
            raise DataError(f"no metric {name!r}", f"the task's code measures {', '.join(values)}")
    released = evaluation.measure([values[name] for name in spec.columns], rows)
    update = Update(assignment.id, released, weight_units(rows))
    said = f"evaluation: {', '.join(spec.columns)} over {rows} rows held out"
    return Result("evaluation", update, tuple(f"metric {name}" for name in spec.columns), said)
