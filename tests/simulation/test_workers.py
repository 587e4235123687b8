"""Several processes make the versions that one makes."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from torch import nn

import shoal
from shoal import LocalPlan
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.robust import Median
from shoal.core.errors import DataError, TaskError
from tests.simulation.cohorts import regression_clients, regression_task

pytestmark = pytest.mark.processes

PLAN = LocalPlan(epochs=2, batch_size=4, optimizer=shoal.sgd(0.05, momentum=0.9))
CLIENTS = regression_clients(tuple(range(1, 25)))


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_the_number_of_workers_does_not_change_a_bit(trainer: str):
    task = regression_task(PLAN, roles={"2.bias": shoal.Role.LOCAL})
    alone, together = (
        shoal.simulate(task, CLIENTS, rounds=3, cohort=18, trainer=trainer, chunk=4, workers=workers)
        for workers in (1, 3)
    )
    assert [version.digest for version in together.versions] == [version.digest for version in alone.versions]
    assert [row.loss for row in together.history] == [row.loss for row in alone.history]
    assert together.personal.keys() == alone.personal.keys()
    for name, tree in alone.personal.items():
        np.testing.assert_array_equal(together.personal[name]["2.bias"], tree["2.bias"])


def test_more_workers_than_chunks_and_a_median():
    task = regression_task(PLAN, strategy=shoal.Strategy("median", Median(), SGD()))
    alone, together = (
        shoal.simulate(task, CLIENTS[:6], rounds=2, trainer="vmapped", chunk=3, workers=workers) for workers in (1, 4)
    )
    assert together.versions[-1].digest == alone.versions[-1].digest


def test_a_failing_client_is_named_by_its_worker():
    clients = regression_clients((8,) * 6)
    clients[4].arrays["x"][1, 1] = np.nan
    run = shoal.simulate(regression_task(PLAN), clients, rounds=1, trainer="vmapped", chunk=2, workers=2)
    assert [failure.client for failure in run.failures] == ["c4"]
    assert run.history[0].reports == 5


class Failing:
    """A source that cannot load one of its clients."""

    names = ("a", "b", "c", "d")

    def many(self, names: Sequence[str]) -> Iterable[object]:
        for name in names:
            if name == "d":
                raise DataError("client 'd': its file is gone", "put it back")
            yield np.ones((4, 4), np.float32), np.ones((4, 1), np.float32)


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(DataError, match="client 'd': its file is gone"):
        shoal.simulate(regression_task(PLAN), Failing(), rounds=1, trainer="loop", chunk=1, workers=2)


class Dying(nn.Module):
    """A model that ends the process it is trained in, once it is trained on eight rows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x: object) -> object:
        if len(x) == 8:  # type: ignore[arg-type]
            os._exit(9)
        return self.linear(x)


def test_a_worker_that_dies_is_an_error_and_not_a_hang():
    task = regression_task(LocalPlan(batch_size=8), Dying())
    with pytest.raises(TaskError, match="a worker process died"):
        shoal.simulate(task, regression_clients((4, 8)), rounds=1, trainer="loop", chunk=1, workers=2)


THREADED = """
import shoal.remote.virtual  # gives torch a device of its own, for which its engine starts a thread
import shoal
from tests.simulation.cohorts import regression_clients, regression_task
shoal.simulate(regression_task(shoal.LocalPlan()), regression_clients((4, 4)), rounds=1, trainer="loop", workers=2)
"""


def test_a_process_that_cannot_be_forked_says_so():
    done = subprocess.run([sys.executable, "-c", THREADED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert 'use workers=1 or "ray" beside a GPU or remote tensors' in done.stderr


def test_what_clients_keep_does_not_depend_on_the_number_of_workers():
    task = regression_task(LocalPlan(batch_size=4), strategy=shoal.scaffold())
    options = {"rounds": 3, "cohort": 6, "trainer": "loop", "chunk": 2}
    alone, together = (shoal.simulate(task, regression_clients(), workers=workers, **options) for workers in (1, 2))
    assert [version.digest for version in together.versions] == [version.digest for version in alone.versions]
    for name, tree in alone.personal.items():
        np.testing.assert_array_equal(together.personal[name]["own_control/2.bias"], tree["own_control/2.bias"])
