"""Training in two turns, as FedRep does: first the local arrays alone, then the others alone."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shoal.algorithms.rule import LocalRule
from shoal.core.roles import Role
from shoal.core.seeds import derive
from shoal.core.task import LocalPlan
from shoal.core.tree import Tree
from shoal.train.cohort import CohortTrainer, Trained
from shoal.train.data import ClientData
from shoal.train.task import Task


def turns(task: Task) -> tuple[Task, Task]:
    """Return a task as its first turn sees it, where only local arrays move, and as its second, where those stay."""
    roles = {name: spec.role for name, spec in task.arrays.items()}
    plain = replace(task.strategy, rule=None, staying=())
    held = {name: Role.FROZEN if role is Role.TRAINABLE else role for name, role in roles.items()}
    model = copy.deepcopy(task.model)
    for name, parameter in model.named_parameters():
        if roles[name] is Role.LOCAL:
            parameter.requires_grad_(False)
    return replace(task, strategy=plain, roles=held), replace(task, strategy=plain, roles=roles, model=model)


def first_turn(client: ClientData) -> ClientData:
    """Return a client as its first turn sees it: its rows come in an order of their own."""
    return replace(client, seed=derive(client.seed, "first turn"))


class InTurns:
    """Two trainers of many clients, one for each turn."""

    def __init__(self, first: CohortTrainer, second: CohortTrainer, rule: LocalRule) -> None:
        self.name = second.name
        self._first = first
        self._second = second
        self._rule = rule

    def train_cohort(
        self, params: Tree, plan: LocalPlan, clients: Sequence[ClientData], personal: Mapping[str, Tree], round: int
    ) -> Trained:
        """Train the clients' local arrays, and those clients again that this went well for."""
        local = self._rule.local_first(plan)
        assert local is not None  # it is for rules that have such a turn
        begun = self._first.train_cohort(params, local, [first_turn(client) for client in clients], personal, round)
        if not begun.positions:
            return replace(begun, updates=None)
        going_on = [clients[position] for position in begun.positions]
        done = self._second.train_cohort(params, plan, going_on, begun.personal, round)
        positions = [begun.positions[position] for position in done.positions]
        return replace(done, positions=positions, failures={**begun.failures, **done.failures})
