"""One client's part in a round by its task's plan and rule: what a real device does, one after the other."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from shoal.algorithms import registry
from shoal.algorithms.rule import LocalRule, Ruled
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
from shoal.train.turns import first_turn, turns


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
        self._progress = progress
        self._device = device

    def train(
        self, params: Tree, shared: Tree, plan: LocalPlan, round: int, client: ClientData, own: Tree
    ) -> tuple[Update, dict[str, Array]]:
        """Return the update that leaves, and all that the client keeps from now on.

        `params` are a version's arrays, `shared` the trees that belong to it as "<tree>/<array>", `own` what the client
        kept. What is missing of the rule's trees is zero. Raises NotFinite, TaskError.
        """
        rule, at = registry.local_rule(plan), plan.at_round(round)
        if rule is None:
            update, staying = _once(self._trainer, params, at, client, own)
            return update, {**own, **staying}
        ruled = Ruled(rule, self._arrays)
        loss = self._start_loss(params, client, own) if rule.measures_start else math.nan
        corrected = replace(client, correction=ruled.correction(shared, own))
        update, staying = self._ruled(rule, params, at, corrected, own)
        update, trees = ruled.finished(update, at, steps_of(client.rows, plan), shared, own, loss)
        kept = {**own, **staying, **trees}
        second = rule.companion(plan)
        if second is not None:
            kept |= _once(self._trainer, params, second.at_round(round), client, own)[1]
        return update, kept

    def local(self, own: Tree) -> Tree:
        """Return the local arrays among what a client keeps: they complete a version for it."""
        return {name: own[name] for name in names_with(self._arrays, Role.LOCAL) if name in own}

    def _ruled(
        self, rule: LocalRule, params: Tree, plan: LocalPlan, client: ClientData, own: Tree
    ) -> tuple[Update, Tree]:
        local = rule.local_first(plan)
        if local is None:
            return _once(self._trainer, params, plan, client, own)
        first, second = (LoopTrainer(turn, self._progress, self._device, self._fixed) for turn in turns(self._task))
        _, begun = _once(first, params, local, first_turn(client), own)
        return _once(second, params, plan, client, begun)

    def _start_loss(self, params: Tree, client: ClientData, own: Tree) -> float:
        (loss,) = start_losses(self._task, {**self._fixed, **params}, [client], [own])
        return loss


def _once(trainer: LoopTrainer, params: Tree, plan: LocalPlan, client: ClientData, own: Tree) -> tuple[Update, Tree]:
    trainer.personal = {client.name: own} if own else {}
    (update,) = trainer.train(params, plan, [client])
    return update, trainer.personal.get(client.name, {})
