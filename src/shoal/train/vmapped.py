"""Training a hundred clients in one tensor operation: torch.func.vmap over stacked clients.

Every array of the model gets a leading axis of clients, running statistics too. Random numbers (dropout) are drawn
anew for every client. A model that vmap cannot take (a branch on values, `.item()`, boolean masks) raises TaskError.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from shoal.algorithms.stacked import Stacked
from shoal.core.errors import TaskError
from shoal.core.roles import Role
from shoal.core.seeds import derive
from shoal.core.task import WEIGHT_UNIT, LocalPlan
from shoal.core.tree import Array, Tree
from shoal.train.arrays import choose_trained, names_with, read_arrays
from shoal.train.cohort import Trained
from shoal.train.data import ClientData
from shoal.train.functional import stacked_optimizer
from shoal.train.graph import Finish, TracedStep, bucket
from shoal.train.objective import USER_ERRORS, objective
from shoal.train.packing import Packed, Turn
from shoal.train.progress import Steps, scheduled
from shoal.train.randomness import seeded
from shoal.train.step import Operands, Step, StepMaker
from shoal.train.task import Task


class VmappedCohort:
    """Trains all clients of a chunk in lockstep, on a copy of the task's model.

    `finish` makes a traced graph a step (`graph.scripted`, `graph.compiled`); without it nothing is traced. The first
    round always runs untraced, so that it need not wait.
    """

    def __init__(self, task: Task, device: str = "cpu", *, name: str = "vmapped", finish: Finish | None = None) -> None:
        self.name = name
        self._finish = finish
        self._made: dict[tuple[str, float, bool, bool], _Made] = {}
        self.device = torch.device(device)
        self.arrays = task.arrays
        self._objective = objective(task.loss)
        self._model = copy.deepcopy(task.model)
        moved = {id(parameter) for parameter in choose_trained(self._model, self.arrays)}
        self._trained = [name for name, array in self._model.named_parameters() if id(array) in moved]
        fixed = set(names_with(self.arrays, Role.FROZEN))
        self._fixed = [name for name in self.arrays if name in fixed and name not in self._trained]
        self._buffers = [name for name in self.arrays if name not in fixed and name not in self._trained]
        self._travelling = [name for name, spec in self.arrays.items() if spec.role.travels]
        self._local = list(names_with(self.arrays, Role.LOCAL))
        self._start = read_arrays(self._model, self.arrays)
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in self._model.modules())
        self._model.to(self.device).train()

    def train_cohort(
        self,
        params: Tree,
        plan: LocalPlan,
        clients: Sequence[ClientData],
        personal: Mapping[str, Tree],
        round: int,
    ) -> Trained:
        """Train all clients at once, from `params` or, as the plan says, from their personal arrays."""
        packed = Packed(clients, plan.batch_size, self.device)
        corrected = any(client.correction for client in clients)
        made = self._made_for(plan, packed.columns, corrected, traced=self._finish is not None and round > 1)
        staying = [*self._travelling, *self._local] if plan.start == "personal" else self._local
        operands = self._operands({**self._start, **params}, packed, _kept(clients, personal, staying), made.maker)
        seed = derive("cohort", *(client.seed for client in packed.clients))
        with seeded(seed), _onednn(allowed=not self._recurrent):
            log = self._epochs(made, plan, packed, operands, round)
        return self._result(params, plan, packed, operands, _Losses(log, packed, plan), staying)

    def _made_for(self, plan: LocalPlan, columns: Sequence[str], corrected: bool, *, traced: bool) -> "_Made":
        key = (plan.start, plan.proximal, corrected, traced)
        made = self._made.get(key)
        if made is None or made.plan != plan or made.maker.columns != columns:
            maker = self._maker(plan, columns, corrected)
            eager = maker.eager()
            steady = TracedStep(maker, self._finish) if traced and self._finish else eager
            made = self._made[key] = _Made(plan, maker, eager, steady, bucket if traced else _exactly)
        return made

    def _maker(self, plan: LocalPlan, columns: Sequence[str], corrected: bool) -> StepMaker:
        return StepMaker(
            model=self._model,
            objective=self._objective,
            optimizer=stacked_optimizer(plan.optimizer, scheduled=scheduled(plan)),
            trained=self._trained,
            buffers=self._buffers,
            fixed=self._fixed,
            columns=columns,
            proximal=plan.proximal,
            pulled=frozenset(names_with(self.arrays, Role.TRAINABLE)),
            corrected=corrected,
            clip=plan.clip_gradient,
        )

    def _operands(self, tree: Tree, packed: Packed, personal: Mapping[str, Tree], maker: StepMaker) -> Operands:
        def each(name: str) -> torch.Tensor:
            return self._each(name, tree[name], packed.clients, personal)

        trained = [each(name) for name in self._trained]
        return Operands(
            trained,
            [[torch.zeros_like(array) for array in trained] for _ in range(maker.optimizer.slots)],
            [each(name) for name in self._buffers],
            [self._tensor(tree[name]).clone() for name in self._trained] if maker.proximal else [],
            [self._tensor(tree[name]) for name in self._fixed],
            [self._corrections(name, tree[name], packed.clients) for name in self._trained] if maker.corrected else [],
        )

    def _corrections(self, name: str, like: Array, clients: Sequence[ClientData]) -> torch.Tensor:
        none = np.zeros_like(like)
        return self._tensor(np.stack([client.correction.get(name, none) for client in clients]))

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)

    def _each(
        self, name: str, array: Array, clients: Sequence[ClientData], personal: Mapping[str, Tree]
    ) -> torch.Tensor:
        one = self._tensor(array)
        every = one.expand(len(clients), *one.shape).clone(memory_format=torch.contiguous_format)
        for row, client in enumerate(clients if personal else ()):
            own = personal.get(client.name, {})
            if name in own:
                every[row] = self._tensor(own[name])
        return every

    def _epochs(
        self, made: "_Made", plan: LocalPlan, packed: Packed, operands: Operands, round: int
    ) -> list[tuple[Turn, torch.Tensor]]:
        steps = Steps(made.maker.optimizer, plan, round, torch.zeros(len(packed.clients), dtype=torch.int64))
        log: list[tuple[Turn, torch.Tensor]] = []
        for epoch in range(plan.epochs):
            for turn in packed.turns(plan, epoch, made.widths):
                factors = [factor.to(self.device) for factor in steps.next(turn)]
                everybody = turn.live == len(packed.clients)
                part = (
                    operands.given(turn.batch, factors) if everybody else operands.at(turn.which, turn.batch, factors)
                )
                kept = [array[turn.surplus].clone() for array in operands.moved()] if turn.surplus else []
                losses = _run(made.steady if turn.steady else made.eager, part, packed, turn)
                if turn.surplus:
                    operands.put_back(turn.surplus, kept)
                elif isinstance(turn.which, torch.Tensor):
                    operands.put_back(turn.which, part.moved())
                log.append((turn, losses if everybody else losses[: turn.live]))
        return log

    def _result(
        self,
        params: Tree,
        plan: LocalPlan,
        packed: Packed,
        operands: Operands,
        losses: "_Losses",
        staying: Sequence[str],
    ) -> Trained:
        after = {
            name: array.cpu().numpy()
            for name, array in zip(
                [*self._trained, *self._buffers], [*operands.trained, *operands.buffers], strict=True
            )
        }
        place = np.argsort(packed.order)  # from the order of training back to that of the cohort
        finite = np.isfinite(losses.total[place])
        good = place[finite]
        with np.errstate(invalid="ignore", over="ignore"):
            delta = {name: _rows(after[name], good) - params[name] for name in self._travelling}
            if plan.clip_update is not None:
                _clip([delta[name] for name in names_with(self.arrays, Role.TRAINABLE)], plan.clip_update)
        failures = {packed.clients[i].name: losses.failure(int(i)) for i in place[~finite]}
        stayed: Sequence[int] = good.tolist() if staying else []
        personal = {packed.clients[i].name: {name: after[name][i].copy() for name in staying} for i in stayed}
        updates = Stacked(
            [packed.clients[i].assignment for i in good],
            delta,
            packed.rows[good] * WEIGHT_UNIT,
            losses.mean[good],
        )
        positions = packed.order[good].tolist()
        return Trained(updates if len(good) else None, positions, failures, personal)


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A step, for what it was made, its form for steady turns, and how that widens the number of live clients."""

    plan: LocalPlan
    maker: StepMaker
    eager: Step
    steady: Step
    widths: Callable[[int, int], int]


def _kept(
    clients: Sequence[ClientData], personal: Mapping[str, Tree], staying: Sequence[str]
) -> dict[str, Mapping[str, Array]]:
    own = {client.name: personal[client.name] for client in clients if client.name in personal}
    return {client: {name: tree[name] for name in staying if name in tree} for client, tree in own.items()}


def _exactly(live: int, chunk: int) -> int:
    del chunk
    return live


class _Losses:
    """The losses of all steps: `mean` [C] over the rows of the last epoch; `total` [C] is finite when all were."""

    def __init__(self, log: Sequence[tuple[Turn, torch.Tensor]], packed: Packed, plan: LocalPlan) -> None:
        self._log = [(turn, losses.detach().cpu().numpy()) for turn, losses in log]
        self._plan = plan
        self._packed = packed
        per_epoch = len(self._log) // plan.epochs
        self.total = self._sum(self._log)
        self.mean = self._sum(self._log[-per_epoch:]) / packed.rows

    def _sum(self, log: Iterable[tuple[Turn, Array]]) -> npt.NDArray[np.float64]:
        total = np.zeros(len(self._packed.rows))
        with np.errstate(invalid="ignore"):
            for turn, losses in log:
                total[_index(turn)] += losses.astype(np.float64) * turn.rows
        return total

    def failure(self, client: int) -> str:
        """Return where, and with what loss, a client's training went wrong."""
        own = [float(losses[where[0]]) for turn, losses in self._log if (where := _find(turn, client)).size]
        first = next(i for i, loss in enumerate(own) if not np.isfinite(loss))
        epoch, step = divmod(first, len(own) // self._plan.epochs)
        name = self._packed.clients[client].name
        return (
            f"client {name!r}, epoch {epoch}, step {step}: the loss is {own[first]}: "
            "lower the learning rate, or check the client's data"
        )


@contextmanager
def _onednn(*, allowed: bool) -> Iterator[None]:
    # oneDNN's recurrent layer has no batching rule, vmap would run it once a client
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(before and allowed)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _run(step: Step, part: Operands, packed: Packed, turn: Turn) -> torch.Tensor:
    try:
        return step(*part.flat())
    except USER_ERRORS as error:
        names = [packed.clients[i].name for i in np.arange(len(packed.clients))[_index(turn)][:3]]
        raise TaskError(
            f"the clients {names} and so on, all at once: {str(error).splitlines()[0] if str(error) else error!r}",
            'train with trainer="loop", which names the client and the step',
        ) from error


def _index(turn: Turn) -> slice | Array:
    return turn.stepping if isinstance(turn.stepping, slice) else turn.stepping.numpy()


def _find(turn: Turn, client: int) -> Array:
    if isinstance(turn.stepping, slice):
        inside = turn.stepping.start <= client < turn.stepping.stop
        return np.array([client - turn.stepping.start] if inside else [], np.int64)
    return np.flatnonzero(turn.stepping.numpy() == client)


def _clip(deltas: Sequence[Array], most: float) -> None:
    flat = [delta.reshape(len(delta), -1) for delta in deltas]
    norms = np.sqrt(sum(np.square(delta, dtype=np.float64).sum(axis=1) for delta in flat))
    for delta in flat:
        delta *= np.minimum(1.0, most / np.maximum(norms, most))[:, None].astype(delta.dtype)


def _rows(array: Array, chosen: npt.NDArray[np.int64]) -> Array:
    return array if np.array_equal(chosen, np.arange(len(array))) else array[chosen]
