"""The trainers by name, and choosing one by measurement.

`auto` trains a few clients for one step by `loop` and by `vmapped`. When they differ, or `vmapped` cannot take the
model or is slower, `loop` is chosen; else `graph` where what it saves in the rounds to come repays its tracing.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from shoal.algorithms import local, registry
from shoal.algorithms.registry import nearest
from shoal.core.errors import ConfigurationError, NotTraceable, TaskError
from shoal.core.task import LocalPlan
from shoal.core.tree import Array, Tree
from shoal.train import graph
from shoal.train.cohort import CohortTrainer, LoopCohort, Trained
from shoal.train.data import ClientData
from shoal.train.ruled import RuledCohort
from shoal.train.task import Task
from shoal.train.turns import InTurns, turns
from shoal.train.vmapped import VmappedCohort

TRACE_SECONDS = 2.0
"""About what importing and tracing cost."""

SAVED = 0.5
"""The part of a vmapped step's time that replaying a trace saves."""

RELATIVE = 1e-3
ABSOLUTE = 1e-6
"""How far one step of two trainers may be apart: as a share of an array's largest value, and in any case."""

FEW = 4
"""Clients on which trainers are compared."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The trainer of a run and why it is that one; `fallback` takes over should the model turn out untraceable."""

    trainer: str
    reason: str
    fallback: str = ""

    def fallen_back(self, why: str) -> "Choice":
        """Return the choice of the fallback."""
        return Choice(self.fallback, f"{self.trainer} was chosen ({self.reason}), but {why}")


TRAINERS: Mapping[str, Callable[[Task, str], CohortTrainer]] = {
    "loop": LoopCohort,
    "vmapped": VmappedCohort,
    "graph": lambda task, device: VmappedCohort(task, device, name="graph", finish=graph.scripted),
    "compiled": lambda task, device: VmappedCohort(task, device, name="compiled", finish=graph.compiled),
}


class Naming:
    """A trainer of many clients at once that says which of them it was when they cannot be trained."""

    def __init__(self, inner: CohortTrainer, task: Task) -> None:
        self.name = inner.name
        self._inner = inner
        self._task = task

    def train_cohort(
        self, params: Tree, plan: LocalPlan, clients: Sequence[ClientData], personal: Mapping[str, Tree], round: int
    ) -> Trained:
        """Train all at once. Raises TaskError, of the client that the reference cannot train where there is one."""
        try:
            return self._inner.train_cohort(params, plan, clients, personal, round)
        except NotTraceable:
            raise
        except TaskError:
            loop = LoopCohort(self._task)
            for client in clients:
                loop.train_cohort(params, replace(plan, epochs=1), [client], personal, round)
            raise


def make_trainer(name: str, task: Task, device: str) -> CohortTrainer:
    """Make the trainer of a name. Raises ConfigurationError for an unknown one."""
    if name not in TRAINERS:
        known = ["auto", *TRAINERS]
        raise ConfigurationError(f"no trainer {name!r}", f"use one of {', '.join(known)}{nearest(name, known)}")
    rule = registry.local_rule(task.plan)
    if rule is None:
        return _named(name, task, device)
    if rule.local_first(task.plan) is None:
        return RuledCohort(_named(name, task, device), rule, task)
    first, second = (_named(name, turn, device) for turn in turns(task))
    return RuledCohort(InTurns(first, second, rule), rule, task)


def _named(name: str, task: Task, device: str) -> CohortTrainer:
    trainer = TRAINERS[name](task, device)
    return trainer if name == "loop" else Naming(trainer, task)


def choose(
    task: Task,
    params: Tree,
    clients: Sequence[ClientData],
    device: str,
    updates: int,
    clock: Callable[[], float] = time.process_time,
) -> Choice:
    """Choose a trainer on some clients (as many as are trained at once), for a run of about `updates` updates."""
    if len(clients) == 1:
        return Choice("loop", "one client at a time has nothing to share")
    loop, vmapped = LoopCohort(task, device), VmappedCohort(task, device)
    calm = _without_dropout(task)
    try:
        found = difference(task, params, clients[:FEW], LoopCohort(calm, device), VmappedCohort(calm, device))
    except TaskError as error:
        return Choice("loop", f"vmapped cannot train this model: {error.problem}")
    if found > 1:
        return Choice("loop", f"one step of vmapped differs from that of loop by {found:.3g} times the tolerance")
    alone = _seconds(loop, task, params, clients[:FEW], clock)
    together = _seconds(vmapped, task, params, clients, clock)
    speeds = f"a step of a client takes {together * 1e6:.0f} us in vmapped, {alone * 1e6:.0f} us in loop"
    if together > alone:
        return Choice("loop", speeds)
    steps = task.plan.epochs * max(math.ceil(client.rows / task.plan.batch_size) for client in clients)
    if updates * steps * together * SAVED > TRACE_SECONDS:
        return Choice("graph", f"{speeds}; tracing repays over {updates} updates", fallback="vmapped")
    return Choice("vmapped", f"{speeds}; tracing would not repay over {updates} updates")


def difference(
    task: Task, params: Tree, clients: Sequence[ClientData], left: CohortTrainer, right: CohortTrainer
) -> float:
    """Return how far apart one step of plain SGD takes two trainers, in units of the tolerance."""
    plan = replace(task.plan, epochs=1, optimizer=local.sgd(1.0), shuffle=False)
    few = [_shortened(client, plan.batch_size) for client in clients]
    results = [trainer.train_cohort(params, plan, few, {}, 1) for trainer in (left, right)]
    return max((_excess(a, b) for a, b in zip(*map(_deltas, results), strict=True)), default=math.inf)


def _without_dropout(task: Task) -> Task:
    """Return a task whose layers draw no random numbers: no two trainers would draw the same."""
    model = copy.deepcopy(task.model)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
    return replace(task, model=model)


def _deltas(trained: Trained) -> list[Array]:
    if trained.updates is None:
        return []
    return [trained.updates.delta[name] for name in sorted(trained.updates.delta)]


def _excess(left: Array, right: Array) -> float:
    if left.shape != right.shape:
        return math.inf
    if left.size == 0:
        return 0.0
    tolerance = RELATIVE * float(np.abs(left).max()) + ABSOLUTE
    return float(np.abs(left.astype(np.float64) - right).max()) / tolerance


def _seconds(
    trainer: CohortTrainer,
    task: Task,
    params: Tree,
    clients: Sequence[ClientData],
    clock: Callable[[], float],
) -> float:
    """Return the time of one step of one client; the first pass, which warms up, does not count."""
    plan: LocalPlan = replace(task.plan, epochs=1)
    few = [_shortened(client, plan.batch_size) for client in clients]
    times = []
    for _ in range(3):
        before = clock()
        trainer.train_cohort(params, plan, few, {}, 1)
        times.append(clock() - before)
    return min(times[1:]) / len(few)


def _shortened(client: ClientData, rows: int) -> ClientData:
    return replace(client, arrays={name: array[:rows] for name, array in client.arrays.items()})
