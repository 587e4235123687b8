"""Measuring a model on rows, and getting it back as a module."""

import copy

import torch
from torch import nn

from shoal.core.errors import TaskError
from shoal.core.tree import Tree
from shoal.train.arrays import describe, load_arrays, tensor
from shoal.train.data import ClientData
from shoal.train.objective import check_batch, measured
from shoal.train.task import Task

BATCH = 1024
"""Rows that go through the model at once."""


def load_model(task: Task, tree: Tree) -> nn.Module:
    """Return a copy of the task's model, in evaluation mode, with the arrays of a version.

    Arrays that do not travel may be left out: they are then the task's own. Raises TaskError when the tree is not of
    this model.
    """
    needed = {name for name, spec in describe(task.model, task.roles).items() if spec.role.travels}
    missing = sorted(needed - tree.keys())
    if missing:
        raise TaskError(f"the version lacks the arrays {missing}", "use the code that the task was published with")
    model = copy.deepcopy(task.model)
    load_arrays(model, tree)
    return model.eval()


def evaluate(task: Task, params: Tree, data: ClientData) -> dict[str, float]:
    """Return the loss and the task's metrics over all rows, in evaluation mode.

    Each is the mean over batches, weighted by their rows: exact for measures that are themselves means over rows.
    """
    measures = {"loss": task.loss, **task.metrics}
    check_batch(measures, data.arrays)
    model = load_model(task, params)
    rows = {name: tensor(array) for name, array in data.arrays.items()}
    totals = dict.fromkeys(measures, 0.0)
    with torch.no_grad():
        for first in range(0, data.rows, BATCH):
            batch = {name: array[first : first + BATCH] for name, array in rows.items()}
            for name, value in measured(measures, model, batch).items():
                totals[name] += value * min(BATCH, data.rows - first)
    return {name: total / data.rows for name, total in totals.items()}
