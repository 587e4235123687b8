"""Carrying out local training."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from shoal.core.task import LocalPlan
from shoal.core.tree import Tree
from shoal.core.types import Update
from shoal.train.data import ClientData


class Trainer(Protocol):
    """Trains clients one after the other or at once; every implementation agrees with `LoopTrainer`."""

    def train(self, params: Tree, plan: LocalPlan, clients: Sequence[ClientData]) -> Iterator[Update]:
        """Train each client from `params` and yield its update.

        `params` holds every array that travels, and may hold the frozen ones. Raises NotFinite when a loss is NaN or
        infinite, TaskError when the model cannot be trained on a client's data.
        """
        ...
