"""Strategies whose clients keep something: agents at a real coordinator make the versions that a simulation makes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shoal
from shoal import LocalPlan, Strategy, Task
from shoal.agent.data import ArrayData
from shoal.core.tree import digest
from shoal.store.memory import MemoryBlobs, MemoryStore
from tests.agent.federation import Federation

# models this small lose time to a second thread
torch.set_num_threads(1)

SEEDING = threading.Lock()
"""torch's generator is one for all threads, and agents make their models in threads of their own."""

ROUNDS = 3
NAMES = ("bob", "alice")
STRATEGIES = [
    shoal.scaffold(participation=1.0),
    shoal.fednova(),
    shoal.feddyn(alpha=0.2, participation=1.0),
    shoal.ditto(lam=0.5),
    shoal.fedbn(),
    shoal.fedper("3.*"),
    shoal.fedrep("3.*", head_epochs=2),
    shoal.qfedavg(q=1.0),
]
STATELESS = ("fednova", "qfedavg")


def task(strategy: Strategy, **changes: object) -> Task:
    with SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    example = (-np.ones((4, 3), np.float32), -np.ones((4, 1), np.float32))
    plan = LocalPlan(epochs=2, batch_size=4, optimizer=shoal.sgd(0.05))
    options = {"local": plan, "strategy": strategy, "example": example}
    return Task("kept", model, nn.functional.mse_loss, **{**options, **changes})  # type: ignore[arg-type]


def rows(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(sum(name.encode()))
    x = rng.standard_normal((10 + 5 * NAMES.index(name), 3)).astype(np.float32)
    return {"x": x, "y": (x @ np.float32([[1], [-2], [3]]) + NAMES.index(name)).astype(np.float32)}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, MemoryStore(), MemoryBlobs())
    yield made
    made.close()


def begin(federation: Federation, strategy: Strategy) -> None:
    for name in NAMES:
        federation.start(name, ArrayData(rows(name)), lambda: task(strategy))


def simulated(strategy: Strategy, rounds: int = ROUNDS) -> "shoal.simulation.run.SimulatedRun":  # type: ignore[name-defined]
    return shoal.simulate(task(strategy), {name: rows(name) for name in NAMES}, rounds=rounds, seed=1, trainer="loop")


@pytest.mark.slow
def test_what_agents_keep_outlives_them(federation: Federation):
    strategy = shoal.scaffold(participation=1.0)
    run = federation.researcher.publish(task(strategy), rounds=4, goal=2, seed=1, plan=False)
    agents = [federation.start(name, ArrayData(rows(name)), lambda: task(strategy)) for name in NAMES]
    next(version for version in run.follow(within=30) if version.number == 2)
    for running, name in zip(agents, NAMES, strict=True):
        running.end()
        federation.restart_home(name)
    begin(federation, strategy)
    for version in run.follow(within=30):
        last = version
    assert last.digest == simulated(strategy, 4).versions[-1].digest


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.name)
def test_agents_make_the_versions_of_a_simulation(strategy: Strategy, federation: Federation):
    begin(federation, strategy)
    run = federation.researcher.publish(task(strategy), rounds=ROUNDS, goal=2, seed=1, plan=False)
    served = [version.digest for version in run.follow(within=30)]
    alone = simulated(strategy)
    assert served == [version.digest for version in alone.versions[1:]]
    for name in NAMES:
        kept = federation.home(name).states.of(run.id)
        assert digest(kept) == digest(alone.personal.get(name, {}))
        if strategy.name not in STATELESS:
            assert max(float(np.abs(array).max()) for array in kept.values()) > 0
