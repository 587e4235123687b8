"""Checking what a device or a researcher sent before it counts, slice by slice."""

from collections.abc import Mapping

import numpy as np

from shoal.core.check import check_layout, check_names, check_values, check_weight
from shoal.core.errors import RefusedUpdate
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import header
from shoal.server.storage import TreeFile, blocks
from shoal.wire.codec import join_specs
from shoal.wire.messages import ReportHead

HEADER_SLACK = 64 << 10
"""Bytes that a header may be longer than the canonical one."""


def largest_report(spec: TaskSpec) -> int:
    """Return how many bytes the arrays of one report may take."""
    return largest_tree(join_specs(spec.trees))


def largest_tree(arrays: Mapping[str, ArraySpec]) -> int:
    """Return how many bytes a file of these arrays may take."""
    canonical = header({name: (array.dtype, array.shape) for name, array in arrays.items()})
    return sum(array.size * np.dtype(array.dtype).itemsize for array in arrays.values()) + len(canonical) + HEADER_SLACK


def check_report(spec: TaskSpec, head: ReportHead, file: TreeFile) -> None:
    """Refuse a report that is not what the task asks for. Raises RefusedUpdate, naming array and value."""
    check_weight(head.weight, spec.bounds)
    for name, value in head.metrics.items():
        if not np.isfinite(value):
            raise RefusedUpdate(f"metric {name!r} is {value}", "report finite numbers")
    arrays = join_specs(spec.trees)
    check_file(file, arrays)
    for group in blocks(arrays):
        for name, start, stop in group:
            values = file.slice(name, start, stop)
            if spec.kind == "training":
                check_values(name, arrays[name], values, spec.bounds)
            elif not np.isfinite(values).all():
                raise RefusedUpdate(f"statistic {name!r} holds NaN or infinity", "check the owner's columns")


def check_file(file: TreeFile, arrays: Mapping[str, ArraySpec]) -> None:
    """Refuse a file whose names, shapes or dtypes are others than these."""
    check_names("file", arrays, file.places)
    for name, array in arrays.items():
        check_layout(name, array, file.places[name].dtype, file.places[name].shape)
