import sqlite3
from pathlib import Path

import numpy as np
import pytest

from shoal.agent.examples import FILE, ExampleStore, Layout, Retention
from shoal.agent.sealed import Seal
from shoal.core.errors import ConfigurationError, DataError, WrongKey
from shoal.testing.clock import ManualClock

KEY = bytes(range(32))


def batch(first: int, count: int) -> dict[str, np.ndarray]:
    values = np.arange(first, first + count, dtype=np.float32)
    return {"x": np.stack([values, -values], axis=1), "y": values}


def ys(store: ExampleStore) -> list[float]:
    return sorted(y for held in (False, True) for y in store.rows(held=held).get("y", np.empty(0)).tolist())


@pytest.mark.parametrize("key", [None, KEY])
def test_examples_come_back_as_they_were(tmp_path: Path, key: bytes | None):
    store = ExampleStore(tmp_path, "ann", seal=Seal(key))
    store.add(batch(0, 7))
    store.close()
    again = ExampleStore(tmp_path, "ann", seal=Seal(key))
    rows, held = again.rows(held=False), again.rows(held=True)
    assert ys(again) == list(range(7))
    assert rows["x"].dtype == np.float32
    for part in (rows, held):
        np.testing.assert_array_equal(part["x"][:, 1], -part["y"])
    assert again.observed == 7
    again.close()


def test_the_same_examples_are_held_out_ever_after(tmp_path: Path):
    retention = Retention(count=30)
    store = ExampleStore(tmp_path, "ann", retention=retention)
    once = ExampleStore(tmp_path_of(tmp_path), "ann", retention=Retention())
    for first in range(0, 60, 3):
        store.add(batch(first, 3))
    once.add(batch(0, 60))
    assert once.count(held=True) == 12  # one of each five
    assert store.rows(held=True)["y"].tolist() == [y for y in once.rows(held=True)["y"].tolist() if y >= 30]
    for opened in (store, once):
        opened.close()


def tmp_path_of(folder: Path) -> Path:
    other = folder / "other"
    other.mkdir()
    return other


def test_other_devices_hold_out_others_and_none_without_a_share(tmp_path: Path):
    held = []
    for name, share in (("ann", 0.2), ("ben", 0.2), ("cat", 0.0)):
        (tmp_path / name).mkdir()
        store = ExampleStore(tmp_path / name, name, holdout=share)
        store.add(batch(0, 50))
        held.append(store.rows(held=True).get("y", np.empty(0)).tolist())
        store.close()
    assert held[0] != held[1]
    assert held[2] == []
    with pytest.raises(ConfigurationError, match=r"0\.6"):
        ExampleStore(tmp_path, "ann", holdout=0.6)


def test_the_newest_stay_by_count_and_by_age(tmp_path: Path):
    clock = ManualClock()
    store = ExampleStore(tmp_path, "ann", retention=Retention(count=4, age=60.0), clock=clock)
    store.add(batch(0, 3))
    clock.advance(50.0)
    store.add(batch(3, 3))
    assert ys(store) == [2, 3, 4, 5]
    clock.advance(11.0)
    assert ys(store) == [3, 4, 5]  # it was not asked to remove, it must not be trained on
    clock.advance(60.0)
    assert store.rows(held=False) == {}
    assert store.observed == 6
    store.close()


def test_nothing_can_be_read_from_a_sealed_file(tmp_path: Path):
    secret = np.float32([[1234.5678, 8765.4321]])
    found = {}
    for key in (None, KEY):
        folder = tmp_path / str(key is None)
        folder.mkdir()
        store = ExampleStore(folder, "ann", seal=Seal(key))
        store.add({"x": secret, "y": np.float32([1])})
        store.close()
        found[key is None] = secret.tobytes() in (folder / FILE).read_bytes()
    assert found == {True: True, False: False}


@pytest.mark.parametrize(("made", "given"), [(KEY, bytes(32)), (KEY, None), (None, KEY)])
def test_another_key_is_refused(tmp_path: Path, made: bytes | None, given: bytes | None):
    ExampleStore(tmp_path, "ann", seal=Seal(made)).close()
    with pytest.raises(WrongKey):
        ExampleStore(tmp_path, "ann", seal=Seal(given))


def test_rows_that_were_exchanged_are_noticed(tmp_path: Path):
    store = ExampleStore(tmp_path, "ann", seal=Seal(KEY), holdout=0.0)
    store.add(batch(0, 2))
    store.close()
    with sqlite3.connect(tmp_path / FILE) as file:
        file.execute("UPDATE examples SET body = (SELECT body FROM examples WHERE number = 1) WHERE number = 2")
    file.close()
    store = ExampleStore(tmp_path, "ann", seal=Seal(KEY), holdout=0.0)
    with pytest.raises(WrongKey, match="example 2"):
        store.rows(held=False)
    store.close()


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ConfigurationError, match="5 bytes"):
        Seal(b"short")


def test_one_example_or_several_in_the_tasks_dtypes():
    layout = Layout.like({"x": np.zeros((4, 3), np.float32), "y": np.zeros(4, np.int64)})
    one = layout.batch({"x": np.zeros(3), "y": np.asarray(2)})
    assert (one["x"].shape, one["x"].dtype, one["y"].tolist()) == ((1, 3), np.float32, [2])
    assert layout.batch({"x": np.zeros((5, 3)), "y": np.arange(5)})["y"].shape == (5,)
    for wrong in ({"x": np.zeros(3)}, {"x": np.zeros(3), "y": np.asarray(1.5)}, {"x": np.zeros(4), "y": np.asarray(1)}):
        with pytest.raises(DataError):
            layout.batch(wrong)
