"""FedBuff and FedAsync against three lines of their papers, with numbers worked by hand."""

import math

import numpy as np
import pytest

import shoal
from shoal.algorithms.buffered import damped, staleness_weight
from shoal.algorithms.strategy import advance
from shoal.core.plan import Buffered
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec, weight_units
from shoal.core.types import Update

ARRAYS = {"w": ArraySpec((1,), "float64"), "seen": ArraySpec((), "int64", Role.COUNTER)}
SPEC = TaskSpec("t", ARRAYS, 1, RoundPlan(goal=2))


def tree(value: float, seen: int = 0) -> dict:
    return {"w": np.array([value]), "seen": np.array(seen)}


def step(strategy, base, updates, start=None) -> float:
    """Move `base` by (delta, examples, staleness) of each update, as a coordinator does."""
    state = strategy.aggregator.init(SPEC)
    full = entered = 0
    for number, (delta, examples, staleness) in enumerate(updates):
        weight = staleness_weight(weight_units(examples), staleness)
        full, entered = full + weight_units(examples), entered + weight
        state = strategy.aggregator.add(state, Update(str(number), tree(delta, 1), weight))
    delta = damped(ARRAYS, dict(strategy.aggregator.finish(state)["delta"]), entered / full, start, base)
    moved, _ = advance(ARRAYS, base, delta, strategy.server, strategy.server.init({}))
    assert moved["seen"] == base["seen"] + 1
    return float(moved["w"][0])


def test_fedbuff_by_hand():
    # fresh: 1 of weight 1; three versions behind: 3 of weight 1/sqrt(4) = 0.5; (1 * 1 + 0.5 * 3) / 2 = 1.25
    assert step(shoal.fedbuff(size=2), tree(10.0), [(1.0, 1, 0), (3.0, 1, 3)]) == 11.25
    assert step(shoal.fedbuff(size=2, lr=0.5), tree(10.0), [(1.0, 1, 0), (3.0, 1, 3)]) == 10.625


def test_fedbuff_is_three_lines_of_its_paper():
    updates = [(0.5, 3, 0), (-2.0, 1, 1), (4.0, 7, 5)]
    total = sum(examples * delta / math.sqrt(1 + staleness) for delta, examples, staleness in updates)
    expected = 10.0 + 0.7 * total / sum(examples for _, examples, _ in updates)
    assert step(shoal.fedbuff(size=3, lr=0.7), tree(10.0), updates) == pytest.approx(expected, abs=1e-5)


def test_fedasync_by_hand():
    # fresh: 10 + 0.6 * ((10 + 1) - 10) = 10.6
    assert step(shoal.fedasync(alpha=0.6), tree(10.0), [(1.0, 5, 0)]) == pytest.approx(10.6)
    # from 6, three versions behind, it comes to 6 + 2 = 8: 10 + 0.6 * 0.5 * (8 - 10) = 9.4
    assert step(shoal.fedasync(alpha=0.6), tree(10.0), [(2.0, 5, 3)], tree(6.0)) == pytest.approx(9.4)


def test_fedasync_is_three_lines_of_its_paper():
    base, start, delta, alpha, staleness = 10.0, 7.5, 0.25, 0.9, 2
    mixed = alpha * (1 + staleness) ** -0.5
    expected = (1 - mixed) * base + mixed * (start + delta)
    found = step(shoal.fedasync(alpha=alpha), tree(base), [(delta, 1, staleness)], tree(start))
    assert found == pytest.approx(expected, abs=1e-4)


def test_weights_are_rounded_once_and_never_to_nothing():
    assert [staleness_weight(100, tau) for tau in range(4)] == [100, 71, 58, 50]
    assert staleness_weight(1, 99) == 1
    assert staleness_weight(2**36, 3) == 2**35


def test_a_fresh_change_is_taken_as_it_is():
    delta = tree(1.0)
    assert damped(ARRAYS, delta, 1.0, None, tree(0.0)) is delta


def test_what_the_strategies_ask_of_the_rounds():
    assert shoal.fedbuff(size=4, concurrency=9, max_staleness=3).buffered == Buffered(4, 9, 3)
    assert shoal.fedasync(concurrency=5).buffered == Buffered(1, 5, 20, mixing="model")
    assert shoal.fedavg().buffered is None
