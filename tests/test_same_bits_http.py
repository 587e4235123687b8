"""The same task gives the same bits in one thread and over HTTP, whoever serves it and whatever goes wrong."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from shoal.agent.data import TableData
from shoal.core.task import RoundPlan
from shoal.data import Table, boston_table, deal, split
from shoal.data.boston import TARGET
from shoal.demo import regression
from shoal.store.blobs import FolderBlobs
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.sql import SqlStore
from shoal.testing.in_process import run_in_process
from shoal.train.data import ClientData
from shoal.train.loop import LoopTrainer
from shoal.train.task import compile_task
from tests.agent.federation import Faulty, Federation

# models this small lose time to a second thread
torch.set_num_threads(1)

ROUNDS = 3
TABLES = dict(zip(("bob", "alice"), deal(split(boston_table())[0], 2), strict=True))


@pytest.fixture(params=["memory", "sqlite"])
def federation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Federation]:
    if request.param == "memory":
        made = Federation(tmp_path, MemoryStore(), MemoryBlobs())
    else:
        made = Federation(tmp_path, SqlStore(tmp_path / "shoal.db"), FolderBlobs(tmp_path / "blobs"))
    yield made
    made.close()


def start(federation: Federation, name: str, table: Table, **options: object) -> None:
    federation.start(name, TableData(table, TARGET), lambda: regression.task(13), **options)


@pytest.mark.slow
def test_a_run_over_http_equals_a_run_in_one_thread_bit_by_bit(federation: Federation):
    columns = TABLES["bob"].without(TARGET).columns
    lost = Faulty(federation.transport, "/report", [httpx.ReadError("cut")], after=True)
    start(federation, "bob", TABLES["bob"], transport=lost)
    start(federation, "alice", TABLES["alice"])
    task = regression.task(13, federation.researcher.statistics(columns, goal=2))
    run = federation.researcher.publish(task, rounds=ROUNDS, goal=2, seed=1, plan=False)
    served = [version.digest for version in run.follow()]

    owners = {
        name: ClientData(name, {"x": table.features(TARGET), "y": table.target(TARGET)})
        for name, table in TABLES.items()
    }
    compiled = compile_task(task, rounds=ROUNDS, plan=RoundPlan(2, 2), seed=1)
    alone = [version.digest for version, _ in run_in_process(compiled, owners, LoopTrainer(task))]
    assert served == alone[1:]
    assert threading.active_count() > 2
