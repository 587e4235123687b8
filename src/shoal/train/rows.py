"""What a task asks of rows, as far as its example, its loss and its declared ranges tell."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from shoal.algorithms.registry import nearest
from shoal.core.errors import TaskError
from shoal.core.schema import RowSchema, check_rows
from shoal.train.arrays import tensor
from shoal.train.data import Columns, columns
from shoal.train.randomness import seeded

if TYPE_CHECKING:
    from shoal.train.task import Task

INDEXED = (functional.cross_entropy, functional.nll_loss)
"""Losses whose integer target "y" must be below the number of the output's classes."""

NOT_IGNORED = -100
"""torch's default of `ignore_index`: no class at all. Whoever means it declares a range."""


def row_schema(task: "Task") -> dict[str, RowSchema]:
    """Return the schema of a task's rows: dtypes and shapes of its example, ranges as declared.

    The classes of a cross-entropy are a range too. Raises TaskError for a range of an array that there is not,
    SchemaMismatch when the example or the test rows are outside.
    """
    example = columns(task.example)
    declared = {**_classes(task, example), **task.ranges}
    for name in declared:
        if name not in example:
            raise TaskError(
                f"task {task.name!r} declares a range of {name!r}",
                f"a batch has {', '.join(sorted(example))}{nearest(name, example)}",
            )
    schema = {
        name: RowSchema(array.dtype.name, array.shape[1:], *declared.get(name, (None, None)))
        for name, array in example.items()
    }
    check_rows(schema, example)
    if task.test is not None:
        check_rows(schema, columns(task.test))
    return schema


def _classes(task: "Task", example: Columns) -> dict[str, tuple[float, float]]:
    loss = task.loss
    indexed = loss in INDEXED or isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss)
    if not indexed or example["y"].dtype.kind not in "iu":
        return {}
    ignored = getattr(loss, "ignore_index", NOT_IGNORED)
    low, high = 0, _outputs(task.model, example) - 1
    return {"y": (low, high) if ignored == NOT_IGNORED else (min(low, ignored), max(high, ignored))}


def _outputs(model: nn.Module, example: Columns) -> int:
    training = model.training
    try:
        with torch.no_grad(), seeded(0):
            return int(model.eval()(tensor(example["x"])).shape[1])
    finally:
        model.train(training)
