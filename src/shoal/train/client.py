"""One client's part in a round by its task's plan and rule: what a real device does, one after the other."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from shoal.algorithms import registry
from shoal.algorithms.rule import Ruled
from shoal.algorithms.steps import steps_of
from shoal.core.roles import Role
from shoal.core.task import LocalPlan
from shoal.core.tree import Array, Tree
from shoal.core.types import Update
from shoal.train.arrays import names_with
from shoal.train.data import ClientData
from shoal.train.loop import CPU, LoopTrainer, Progress
from shoal.train.ruled import start_losses
from shoal.train.task import Task


class ClientTrainer:
    """Trains a client as `LoopCohort` under `RuledCohort` does, to the same bits, and hands back what stays with it.

    `progress` is called after every batch. `fixed` holds arrays that are the same in every round.
    """

    def __init__(
        self, task: Task, progress: Progress | None = None, device: torch.device = CPU, fixed: Tree | None = None
    ) -> None:
        self._task = task
        self._arrays = task.arrays
        self._fixed: Mapping[str, Array] = fixed or {}
        self._trainer = LoopTrainer(task, progress, device, fixed)

    def train(
        self, params: Tree, shared: Tree, plan: LocalPlan, round: int, client: ClientData, own: Tree
    ) -> tuple[Update, dict[str, Array]]:
        """Return the update that leaves, and all that the client keeps from now on.

        `params` are a version's arrays, `shared` the trees that belong to it as "<tree>/<array>", `own` what the client
        kept. What is missing of the rule's trees is zero. Raises NotFinite, TaskError.
        """
        rule, at = registry.local_rule(plan), plan.at_round(round)
        if rule is None:
            update, staying = self._once(params, at, client, own)
            return update, {**own, **staying}
        ruled = Ruled(rule, self._arrays)
        loss = self._start_loss(params, client, own) if rule.measures_start else math.nan
        update, staying = self._once(params, at, replace(client, correction=ruled.correction(shared, own)), own)
        update, trees = ruled.finished(update, at, steps_of(client.rows, plan), shared, own, loss)
        kept = {**own, **staying, **trees}
        second = rule.companion(plan)
        if second is not None:
            kept |= self._once(params, second.at_round(round), client, own)[1]
        return update, kept

    def local(self, own: Tree) -> Tree:
        """Return the local arrays among what a client keeps: they complete a version for it."""
        return {name: own[name] for name in names_with(self._arrays, Role.LOCAL) if name in own}

    def _once(self, params: Tree, plan: LocalPlan, client: ClientData, own: Tree) -> tuple[Update, Tree]:
        self._trainer.personal = {client.name: own} if own else {}
        (update,) = self._trainer.train(params, plan, [client])
        return update, self._trainer.personal.get(client.name, {})

    def _start_loss(self, params: Tree, client: ClientData, own: Tree) -> float:
        (loss,) = start_losses(self._task, {**self._fixed, **params}, [client], [own])
        return loss
