"""Measuring a model on rows, and getting it back as a module."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from shoal.core.errors import TaskError
from shoal.core.task import ArraySpec
from shoal.core.tree import Layered, Tree
from shoal.train.arrays import load_arrays, read_arrays, tensor
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
    _check_complete(task.arrays, tree)
    model = copy.deepcopy(task.model)
    load_arrays(model, tree)
    return model.eval()


def _check_complete(arrays: Mapping[str, ArraySpec], tree: Tree) -> None:
    missing = sorted({name for name, spec in arrays.items() if spec.role.travels} - tree.keys())
    if missing:
        raise TaskError(f"the version lacks the arrays {missing}", "use the code that the task was published with")


class Evaluator:
    """Measures one version after the other on the same rows, with one copy of the task's model.

    Raises TaskError when the rows do not fit the task's measures.
    """

    def __init__(self, task: Task, data: ClientData) -> None:
        self._measures = {"loss": task.loss, **task.metrics}
        check_batch(self._measures, data.arrays)
        self._count = data.rows
        self._rows = {name: tensor(array) for name, array in data.arrays.items()}
        self._arrays = task.arrays
        self._own = read_arrays(task.model, (name for name, spec in self._arrays.items() if not spec.role.travels))
        self._model = copy.deepcopy(task.model).eval()

    def measure(self, params: Tree) -> dict[str, float]:
        """Return the loss and the task's metrics over all rows, in evaluation mode.

        Each is the mean over batches, weighted by their rows: exact for measures that are themselves means over rows.
        Raises TaskError when `params` are not of this model.
        """
        _check_complete(self._arrays, params)
        load_arrays(self._model, Layered(params, self._own))
        totals = dict.fromkeys(self._measures, 0.0)
        with torch.no_grad():
            for first in range(0, self._count, BATCH):
                batch = {name: array[first : first + BATCH] for name, array in self._rows.items()}
                for name, value in measured(self._measures, self._model, batch).items():
                    totals[name] += value * min(BATCH, self._count - first)
        return {name: total / self._count for name, total in totals.items()}


def evaluate(task: Task, params: Tree, data: ClientData) -> dict[str, float]:
    """Return the loss and the task's metrics of one version over all rows, as `Evaluator` does."""
    return Evaluator(task, data).measure(params)
