"""Training many clients of a round: what goes in, what comes out, and the reference way, one after the other."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import nn

from shoal.algorithms.stacked import Stacked, stack
from shoal.core.errors import NotFinite
from shoal.core.task import LocalPlan
from shoal.core.tree import Tree
from shoal.core.types import Update
from shoal.train.data import ClientData
from shoal.train.loop import LoopTrainer
from shoal.train.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Updates of those clients that could be trained, in order, and by name why others could not.

    `positions` are the places of the updates in the cohort; `personal` holds local arrays by client name.
    """

    updates: Stacked | None
    positions: Sequence[int]
    failures: Mapping[str, str] = field(default_factory=dict[str, str])
    personal: Mapping[str, Tree] = field(default_factory=dict[str, Tree])


class CohortTrainer(Protocol):
    """Trains clients from one version; every implementation agrees with `LoopCohort` within the float32 rounding."""

    name: str

    def train_cohort(
        self,
        params: Tree,
        plan: LocalPlan,
        clients: Sequence[ClientData],
        personal: Mapping[str, Tree],
        round: int,
    ) -> Trained:
        """Train every client from `params`, local arrays from `personal` by client name.

        A client whose loss or update is NaN or infinite is named in `failures` and kept out. Raises TaskError when
        the model cannot be trained on a client's data.
        """
        ...


class LoopCohort:
    """One client after the other by `LoopTrainer`; convolutions run in the memory format that is fastest for them."""

    def __init__(self, task: Task, device: str = "cpu") -> None:
        self.name = "loop"
        self._trainer = LoopTrainer(replace(task, model=_laid_out(task.model)), device=torch.device(device))

    def train_cohort(
        self,
        params: Tree,
        plan: LocalPlan,
        clients: Sequence[ClientData],
        personal: Mapping[str, Tree],
        round: int,
    ) -> Trained:
        """Train clients in turn."""
        plan = plan.at_round(round)
        updates: list[Update] = []
        positions: list[int] = []
        failures: dict[str, str] = {}
        self._trainer.personal = {name: personal[name] for client in clients if (name := client.name) in personal}
        for position, client in enumerate(clients):
            try:
                updates.extend(self._trainer.train(params, plan, [client]))
                positions.append(position)
            except NotFinite as error:
                failures[client.name] = str(error)
        return Trained(stack(updates) if updates else None, positions, failures, self._trainer.personal)


def _laid_out(model: nn.Module) -> nn.Module:
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return model
    copied = copy.deepcopy(model)
    copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied
