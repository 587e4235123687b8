"""Starting from weights that exist: a mapping of arrays, a state dict, or a safetensors file."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.core.errors import DataError, TaskError
from shoal.core.task import ArraySpec
from shoal.core.tree import Tree
from shoal.train.arrays import load_arrays
from shoal.train.data import array
from shoal.wire.codec import decode_tree

if TYPE_CHECKING:
    from shoal.train.task import Task

FIX = "give the weights of this model; arrays that are new may be added to the mapping from model.state_dict()"


def started(task: "Task") -> "Task":
    """Return a task whose model holds its initial weights; the task itself is left alone.

    Every array that travels must be given, in the model's shape and dtype; frozen and local ones may be. Raises
    TaskError naming the arrays that differ, DataError for a file that cannot be read.
    """
    if task.initial is None:
        return task
    given = _read(task.initial)
    arrays = task.arrays
    _check(task.name, arrays, given)
    model = copy.deepcopy(task.model)
    load_arrays(model, given)
    return replace(task, model=model, initial=None)


def _read(initial: Any) -> Tree:
    if isinstance(initial, Mapping):
        return {str(name): array(value) for name, value in initial.items()}
    if isinstance(initial, str | Path):
        return read_file(Path(initial).expanduser())
    raise TaskError(
        f"initial weights of type {type(initial).__name__}",
        "give a mapping of arrays, a safetensors file, a run, (run, version), or 'TASK@VERSION'",
    )


def read_file(path: Path) -> Tree:
    """Return the arrays of a safetensors file. Raises DataError when it cannot be opened, BadRequest if it is none."""
    try:
        return decode_tree(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def _check(name: str, arrays: Mapping[str, ArraySpec], given: Tree) -> None:
    found = list(_problems(arrays, given))
    if found:
        raise TaskError(f"initial weights of task {name!r}: {'; '.join(found)}", FIX)


def _problems(arrays: Mapping[str, ArraySpec], given: Tree) -> Iterator[str]:
    for name in sorted(given.keys() - arrays.keys()):
        yield f"the model has no array {name!r}"
    for name, spec in arrays.items():
        if name not in given:
            if spec.role.travels:
                yield f"array {name!r} is missing"
        elif (given[name].dtype.name, given[name].shape) != (spec.dtype, spec.shape):
            yield f"array {name!r} is {given[name].dtype} {given[name].shape}, the model's is {spec.dtype} {spec.shape}"
        elif not np.isfinite(given[name]).all():
            yield f"array {name!r} holds NaN or infinity"
