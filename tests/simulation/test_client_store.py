"""What clients keep lies on disk once it is much, and comes back the same."""

import errno
import os
import tracemalloc

import numpy as np
import pytest

import shoal
from shoal import LocalPlan
from shoal.core.errors import StorageFull, TaskError
from shoal.simulation import client_store
from shoal.simulation.client_store import ClientStore
from tests.simulation.cohorts import regression_clients, regression_task


def tree(number: float) -> dict[str, np.ndarray]:
    return {
        "b/w": np.full((2, 3), number, np.float32),
        "a": np.array(int(number)),
        "none": np.zeros((0, 4), np.float32),
    }


@pytest.mark.parametrize("most", [0, 100, 1 << 20])
def test_what_was_kept_comes_back_wherever_it_lies(most: int):
    store = ClientStore(most)
    for number in range(8):
        store[f"c{number}"] = tree(number)
    store["c2"] = tree(20)
    store["c7"] = tree(70)
    assert store.spilled == (most < 8 * store.row_bytes)
    assert store.row_bytes == 6 * 4 + 8
    again = ClientStore(most)
    again.restore(list(store), store.rows(), store.layout)
    for kept in (store, again):
        assert list(kept) == [f"c{number}" for number in range(8)]
        assert [int(own["a"]) for own in kept.values()] == [0, 1, 20, 3, 4, 5, 6, 70]
        assert kept["c2"]["b/w"].tolist() == [[20.0] * 3] * 2
        assert kept["c2"]["none"].shape == (0, 4)
        assert "c9" not in kept


def test_all_clients_keep_the_same_arrays():
    store = ClientStore()
    store["one"] = tree(1)
    with pytest.raises(TaskError, match="client 'two' keeps the arrays"):
        store["two"] = {"a": np.array(1)}


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = ClientStore(0)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageFull):
        store["one"] = tree(1)


def test_memory_does_not_grow_with_the_clients():
    store = ClientStore(1 << 20)
    big = {"w": np.zeros(25_000, np.float32)}
    tracemalloc.start()
    for number in range(100):  # 10 MB
        store[str(number)] = big
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.spilled
    assert grown < 3 << 20


@pytest.mark.slow
def test_a_run_whose_clients_spill_gives_the_same_bits_and_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch):
    task = regression_task(LocalPlan(batch_size=4), strategy=shoal.scaffold())
    options = {"cohort": 3, "trainer": "loop", "seed": 2}
    whole = shoal.simulate(task, regression_clients(), rounds=6, **options)
    monkeypatch.setattr(client_store.ClientStore.__init__, "__defaults__", (64,))

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        shoal.simulate(task, regression_clients(), rounds=6, checkpoint=path, every=2, callbacks=[_stop], **options)
    again = shoal.simulate(task, regression_clients(), rounds=6, resume=path, **options)
    assert again.personal.spilled  # type: ignore[attr-defined]
    assert [version.digest for version in again.versions] == [version.digest for version in whole.versions]


def _stop(run: object) -> None:
    if len(run.history) == 5:  # type: ignore[attr-defined]
        raise KeyboardInterrupt
