"""The reference trainer: one client after the other, a plain PyTorch loop."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from shoal.algorithms.clipping import clip_update
from shoal.core.errors import NotFinite, TaskError
from shoal.core.roles import Role
from shoal.core.seeds import derive, permutation
from shoal.core.task import LocalPlan, weight_units
from shoal.core.tree import Layered, Tree
from shoal.core.types import Update
from shoal.train.arrays import changes, choose_trained, load_arrays, names_with, read_arrays, tensor
from shoal.train.data import ClientData
from shoal.train.objective import USER_ERRORS, Batch, objective
from shoal.train.optimizer import Stepper
from shoal.train.randomness import seeded
from shoal.train.task import Task

Progress = Callable[[], None]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class _Added:
    """What is added to gradients: mu * (w - w_start) of FedProx's penalty, and the client's correction."""

    mu: float
    start: Sequence[tuple[nn.Parameter, torch.Tensor]]  # the global arrays, wherever training begins
    corrections: Sequence[tuple[nn.Parameter, torch.Tensor]]

    def apply(self) -> None:
        with torch.no_grad():
            for parameter, start in self.start:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start, alpha=self.mu)
            for parameter, correction in self.corrections:
                if parameter.grad is not None:
                    parameter.grad.add_(correction)


class LoopTrainer:
    """Trains clients in turn, on a copy of the task's model; `progress` is called after every batch.

    `personal` holds by client name what stays here from one round to the next: the local arrays, and with
    `LocalPlan(start="personal")` all others that training moves, from which it then begins. `fixed` holds arrays that
    are the same for every client and round, such as a frozen base, and are loaded once.
    """

    def __init__(
        self, task: Task, progress: Progress | None = None, device: torch.device = CPU, fixed: Tree | None = None
    ) -> None:
        fixed = fixed or {}
        self.personal: dict[str, Tree] = {}
        self._arrays = task.arrays
        self._objective = objective(task.loss)
        self._progress = progress
        self._device = device
        self._model = copy.deepcopy(task.model).to(device)
        self._trained = choose_trained(self._model, self._arrays)
        self._travelling = [name for name, spec in self._arrays.items() if spec.role.travels]
        load_arrays(self._model, fixed)
        self._start = read_arrays(self._model, self._arrays.keys() - fixed.keys() - set(self._travelling))
        self._local = list(names_with(self._arrays, Role.LOCAL))

    def train(self, params: Tree, plan: LocalPlan, clients: Sequence[ClientData]) -> Iterator[Update]:
        """Train each client from `params` and yield its update, with the mean loss of its last epoch.

        Frozen arrays come from `fixed`, from `params`, or else from the task; local ones from `personal`. The
        reported loss is the task's own, without the proximal penalty. The plan is that of a round: see
        `LocalPlan.at_round`. Raises NotFinite and TaskError naming client, epoch and step.
        """
        missing = sorted(set(self._travelling) - params.keys())
        if missing:
            raise TaskError(f"params lack the arrays {missing}", "give every array of the version")
        for client in clients:
            with seeded(client.seed):
                update = self._train_one(params, plan, client)
            yield update

    def _train_one(self, params: Tree, plan: LocalPlan, client: ClientData) -> Update:
        staying = [*self._travelling, *self._local] if plan.start == "personal" else self._local
        own = {name: array for name, array in self.personal.get(client.name, {}).items() if name in staying}
        load_arrays(self._model, Layered(own, params, self._start))
        self._model.train()
        loss = self._epochs(plan, client, params)
        if staying:
            self.personal[client.name] = read_arrays(self._model, staying)
        delta = dict(changes(self._model, params, self._travelling))
        if plan.clip_update is not None:
            clip_update(delta, list(names_with(self._arrays, Role.TRAINABLE)), plan.clip_update)
        return Update(client.assignment, delta, weight_units(client.rows), {"loss": loss})

    def _epochs(self, plan: LocalPlan, client: ClientData, params: Tree) -> float:
        stepper = Stepper(plan.optimizer, self._trained, plan.per_step, plan.clip_gradient)
        added = self._added(plan.proximal, params, client.correction)
        data = {name: tensor(array).to(self._device) for name, array in client.arrays.items()}
        total = 0.0
        for epoch in range(plan.epochs):
            rows = _shuffled(data, derive(client.seed, epoch), client.rows) if plan.shuffle else data
            total = self._epoch(plan.batch_size, rows, client, stepper, added, epoch)
        return total / client.rows

    def _epoch(self, size: int, rows: Batch, client: ClientData, stepper: Stepper, added: _Added, epoch: int) -> float:
        total = 0.0
        for step, first in enumerate(range(0, client.rows, size)):
            batch = {name: array[first : first + size] for name, array in rows.items()}
            try:
                value = self._step(batch, stepper, added)
            except USER_ERRORS as error:
                raise TaskError(
                    f"client {client.name!r}, epoch {epoch}, step {step}: {error}",
                    "check the client's data and the model",
                ) from error
            if not math.isfinite(value):
                raise NotFinite(
                    f"client {client.name!r}, epoch {epoch}, step {step}: the loss is {value}",
                    "lower the learning rate, or check the client's data",
                )
            total += value * min(size, client.rows - first)
            if self._progress is not None:
                self._progress()
        return total

    def _step(self, batch: Batch, stepper: Stepper, added: _Added) -> float:
        loss = self._objective(self._model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        added.apply()
        stepper.step()
        return loss.item()

    def _added(self, mu: float, params: Tree, correction: Tree) -> _Added:
        return _Added(mu, self._beside(params) if mu else [], self._beside(correction) if correction else [])

    def _beside(self, tree: Tree) -> list[tuple[nn.Parameter, torch.Tensor]]:
        trainable = set(names_with(self._arrays, Role.TRAINABLE))
        named = [(name, parameter) for name, parameter in self._model.named_parameters() if name in trainable]
        return [(parameter, tensor(tree[name]).to(self._device)) for name, parameter in named]


def _shuffled(data: Batch, seed: int, rows: int) -> Batch:
    order = torch.from_numpy(permutation(seed, rows))
    return {name: array[order] for name, array in data.items()}
