"""A training step as portable data: exported from torch once, trained wherever an ONNX runtime runs.

`export` needs torch; `load`, and all that a loaded plan does, needs onnxruntime and no torch.
"""

from typing import TYPE_CHECKING, Any

from shoal.plan.run import Plan as Plan
from shoal.plan.run import load as load

if TYPE_CHECKING:
    from shoal.train.task import Task


def export(task: "Task", **options: Any) -> Plan:
    """Trace a task's step and return it as a plan, proved on its golden step. See `shoal.plan.export.export`."""
    from shoal.plan.exporting import export as made

    return made(task, **options)
