"""Training by a strategy's rule: corrected gradients, changed updates, and what stays with a client.

What a client keeps lies in one tree: its local arrays under their own names, a rule's as "<tree>/<array>".
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from shoal.algorithms.rule import LocalRule, Ruled
from shoal.algorithms.stacked import stack
from shoal.algorithms.steps import steps_of
from shoal.core.roles import Role
from shoal.core.task import LocalPlan
from shoal.core.tree import Array, Tree
from shoal.core.types import Update
from shoal.train.arrays import load_arrays, names_with, read_arrays, tensor
from shoal.train.cohort import CohortTrainer, Trained
from shoal.train.data import ClientData
from shoal.train.evaluate import BATCH
from shoal.train.objective import objective
from shoal.train.task import Task


class RuledCohort:
    """A trainer of many clients that follows a rule; `params` hold the shared trees as "<tree>/<array>"."""

    def __init__(self, inner: CohortTrainer, rule: LocalRule, task: Task) -> None:
        self.name = inner.name
        self._inner = inner
        self._task = task
        self._ruled = Ruled(rule, task.arrays)

    def train_cohort(
        self, params: Tree, plan: LocalPlan, clients: Sequence[ClientData], personal: Mapping[str, Tree], round: int
    ) -> Trained:
        """Train every client by the rule, and where the rule asks for it a second time, by its companion plan."""
        model = {name: array for name, array in params.items() if name in self._ruled.arrays}
        kept = {client.name: personal.get(client.name, {}) for client in clients}
        ready = [replace(client, correction=self._ruled.correction(params, kept[client.name])) for client in clients]
        trained = self._inner.train_cohort(model, plan, ready, kept, round)
        if trained.updates is None:
            return trained
        losses, at = self._start_losses(model, clients, kept), plan.at_round(round)
        own: dict[str, dict[str, Array]] = {}
        updates: list[Update] = []
        for row, position in enumerate(trained.positions):
            client = clients[position]
            steps = steps_of(client.rows, plan)
            given = (trained.updates.update(row), at, steps, params, kept[client.name], losses[position])
            update, rules = self._ruled.finished(*given)
            own[client.name] = {**kept[client.name], **trained.personal.get(client.name, {}), **rules}
            updates.append(update)
        ruled = replace(trained, updates=stack(updates), personal={name: tree for name, tree in own.items() if tree})
        second = self._ruled.rule.companion(plan)
        if second is None:
            return ruled
        return _together(ruled, self._inner.train_cohort(model, second, clients, kept, round))

    def _start_losses(self, model: Tree, clients: Sequence[ClientData], kept: Mapping[str, Tree]) -> list[float]:
        if not self._ruled.rule.measures_start:
            return [math.nan] * len(clients)
        return start_losses(self._task, model, clients, [kept[client.name] for client in clients])


def _together(first: Trained, second: Trained) -> Trained:
    """Return the updates of a first training with what a second one left with the clients; both must have succeeded."""
    if first.updates is None:
        return first
    both = [row for row, position in enumerate(first.positions) if position in set(second.positions)]
    return Trained(
        first.updates.take(both) if both else None,
        [first.positions[row] for row in both],
        {**second.failures, **first.failures},
        {name: {**first.personal.get(name, {}), **own} for name, own in second.personal.items()},
    )


def start_losses(task: Task, params: Tree, clients: Sequence[ClientData], kept: Sequence[Tree]) -> list[float]:
    """Return the mean loss of one version over each client's rows, in evaluation mode.

    The local arrays among what each client `kept` complete the version.
    """
    model = copy.deepcopy(task.model).eval()
    local = list(names_with(task.arrays, Role.LOCAL))
    load_arrays(model, params)
    begun = read_arrays(model, local)
    measure = objective(task.loss)
    found: list[float] = []
    with torch.no_grad():
        for client, own in zip(clients, kept, strict=True):
            load_arrays(model, {name: own.get(name, begun[name]) for name in local})
            rows = {name: tensor(array) for name, array in client.arrays.items()}
            total = 0.0
            for first in range(0, client.rows, BATCH):
                batch = {name: array[first : first + BATCH] for name, array in rows.items()}
                total += float(measure(model, batch)) * min(BATCH, client.rows - first)
            found.append(total / client.rows)
    return found
