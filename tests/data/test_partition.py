"""Partitions keep every row once, follow their seed, and are as uneven as they say."""

from collections.abc import Callable

import numpy as np
import pytest

import shoal
from shoal import LocalPlan
from shoal.core.errors import ConfigurationError, DataError, NoRows
from shoal.data import partition
from shoal.data.partition import Partition
from tests.simulation.cohorts import regression_task

Y = np.repeat(np.arange(10), 30)
X = np.arange(len(Y) * 4, dtype=np.float32).reshape(-1, 4)

MAKERS: dict[str, Callable[[int], Partition]] = {
    "iid": lambda seed: partition.iid(X, Y, 7, seed=seed),
    "dirichlet": lambda seed: partition.dirichlet(X, Y, 7, alpha=0.5, seed=seed),
    "shards": lambda seed: partition.shards(X, Y, 10, seed=seed),
    "quantity": lambda seed: partition.by_quantity(X, Y, 7, alpha=0.5, least=3, seed=seed),
    "id": lambda seed: partition.by_id(X, Y, [f"writer{i % 6}" for i in range(len(X))]),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_row_goes_to_one_client_with_its_label(kind: str):
    parts = MAKERS[kind](1)
    rows = np.concatenate([x[:, 0] for x, _ in parts.values()])
    assert sorted(rows) == sorted(X[:, 0])
    for x, y in parts.values():
        np.testing.assert_array_equal(Y[(x[:, 0] / 4).astype(int)], y)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "quantity"])
def test_the_same_seed_deals_the_same_rows_and_another_seed_others(kind: str):
    def dealt(seed: int) -> list[bytes]:
        return [x.tobytes() for x, _ in MAKERS[kind](seed).values()]

    assert dealt(1) == dealt(1) != dealt(2)


def test_iid_is_even_and_shards_hold_few_labels():
    assert set(MAKERS["iid"](0).sizes.values()) == {42.0, 43.0}
    labels, counts = MAKERS["shards"](0).counts()
    assert labels.tolist() == list(range(10))
    assert (np.count_nonzero(counts, axis=1) <= 2).all()


def test_a_small_alpha_is_more_uneven():
    def spread(alpha: float) -> float:
        _, counts = partition.dirichlet(X, Y, 5, alpha=alpha, seed=3).counts()
        return float(np.std(counts / counts.sum(axis=1, keepdims=True)))

    assert spread(0.1) > 2 * spread(100.0)
    sizes = [np.std(list(partition.by_quantity(X, Y, 5, alpha=a, seed=3).sizes.values())) for a in (0.1, 100.0)]
    assert sizes[0] > 2 * sizes[1]
    assert min(partition.by_quantity(X, Y, 50, alpha=0.01, least=4).sizes.values()) >= 4


def test_a_feature_shift_is_each_clients_own_and_keeps_labels():
    even = MAKERS["iid"](0)
    shifted = partition.feature_shift(even, deviation=0.5, seed=1)
    assert all((shifted[name][1] == even[name][1]).all() for name in even)
    factors = [np.polyfit(even[name][0][:, 0], shifted[name][0][:, 0], 1) for name in ("0", "1")]
    assert np.abs(factors[0] - factors[1]).max() > 0.01
    assert shifted["0"][0].dtype == np.float32
    untouched = partition.feature_shift(even, deviation=0.0)
    np.testing.assert_array_equal(untouched["3"][0], even["3"][0])


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: partition.iid(X, Y, 0), ConfigurationError, "over 0 clients"),
        (lambda: partition.iid(X, Y, 301), NoRows, "300 rows for 301"),
        (lambda: partition.iid(X, Y[:5], 2), DataError, "300 rows of x, 5 of y"),
        (lambda: partition.dirichlet(X, Y, 3, alpha=0.0), ConfigurationError, "alpha=0"),
        (lambda: partition.dirichlet(X, Y, 60, alpha=0.01), NoRows, "no draw gave each of 60"),
        (lambda: partition.by_id(X, Y, [1, 2]), DataError, "2 ids for 300 rows"),
    ],
)
def test_what_cannot_be_dealt_is_refused(make: Callable[[], Partition], error: type[Exception], match: str):
    with pytest.raises(error, match=match):
        make()


def test_a_partition_is_simulated():
    y = (X.sum(1, keepdims=True) / 1e3).astype(np.float32)
    parts = partition.by_quantity(X / 1e3, y, 8, alpha=1.0, least=2)
    run = shoal.simulate(regression_task(LocalPlan(batch_size=8)), parts, rounds=2, trainer="vmapped")
    assert run.history[-1].loss < run.history[0].loss


@pytest.mark.slow
@pytest.mark.parametrize("labels", [3, 200])
def test_every_partition_draws_itself(labels: int):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    x, y = np.random.default_rng(0).standard_normal((300, 2)), np.arange(300) % labels
    even = partition.iid(x, y, 5)
    for part in (
        even,
        partition.dirichlet(x, y, 5, alpha=5.0),
        partition.shards(x, y, 5),
        partition.by_quantity(x, y, 5, alpha=1.0),
        partition.by_id(x, y, np.arange(300) % 4),
    ):
        axes = part.plot()
        bars = sum(len(container) for container in axes.containers)
        assert bars == len(part) * (labels if labels <= 30 else 1)
        assert sum(bar.get_height() for bar in axes.patches) == 300
    shifted = partition.feature_shift(even, deviation=0.5)
    assert len(shifted.plot().lines) == 5
    pyplot.close("all")
