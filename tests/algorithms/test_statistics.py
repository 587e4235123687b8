"""Two passes over several owners, against numpy on the pooled table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.algorithms.optimizer import SGD
from shoal.algorithms.statistics import PASSES, Moments, arrays, measure, nothing, result
from shoal.algorithms.strategy import advance
from shoal.core.errors import Abandoned, NoRows, RefusedUpdate
from shoal.core.task import RoundPlan, TaskSpec, weight_units
from shoal.core.tree import digest
from shoal.core.types import Update

MOMENTS = Moments()


def spec(columns: int) -> TaskSpec:
    return TaskSpec("s", arrays(columns), PASSES, RoundPlan(goal=1), kind="statistics")


def total(task, updates):
    state = MOMENTS.init(task)
    for update in updates:
        state = MOMENTS.add(state, update)
    return state


def passes(tables):
    """Run both passes as the rounds do: each adds to the version before."""
    task, version = spec(tables[0].shape[1]), nothing(tables[0].shape[1])
    for number in (1, 2):
        updates = [
            Update(f"a{owner}", measure(table, version, number), weight_units(1)) for owner, table in enumerate(tables)
        ]
        delta = MOMENTS.finish(total(task, updates))["delta"]
        version, _ = advance(task.arrays, version, delta, SGD(), {})
    return version


def statistics(*tables):
    return result([f"x{column}" for column in range(tables[0].shape[1])], passes(tables))


def test_equals_numpy_on_the_pooled_table():
    draw = np.random.default_rng(4)
    scales = np.array([1.0, 1e-6, 1e6, 1.0])
    tables = [draw.normal(size=(rows, 4)) * scales + [0.0, 1.0, -3e6, 1e5] for rows in (1, 40, 500)]
    pooled = np.concatenate(tables)
    found = statistics(*tables)
    np.testing.assert_allclose(found.mean, pooled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, pooled.std(axis=0, ddof=1), rtol=1e-12)
    assert np.array_equal(found.minimum, pooled.min(axis=0))
    assert np.array_equal(found.maximum, pooled.max(axis=0))
    assert found.count.tolist() == [541.0] * 4
    assert found.binary.tolist() == [False] * 4
    assert found.columns == ("x0", "x1", "x2", "x3")


def test_by_hand():
    found = statistics(np.array([[2.0], [4.0]]), np.array([[9.0]]))
    assert found.mean.tolist() == [5.0]
    assert found.deviation.tolist() == [np.sqrt((9 + 1 + 16) / 2)]


@pytest.mark.parametrize("value", [0.1, -0.7, 0.0, 1e300])
@pytest.mark.parametrize("rows", [3, 49])
def test_a_constant_column_has_no_deviation_at_all(value, rows):
    found = statistics(np.full((rows, 1), value), np.full((2, 1), value))
    assert found.deviation.tolist() == [0.0]
    assert found.mean.tolist() == [value]
    assert found.binary.tolist() == [False]


@pytest.mark.parametrize(
    ("parts", "binary"),
    [
        (([0.0, 1.0], [1.0, 1.0]), True),
        (([0.0, 0.0], [1.0, 1.0]), True),
        (([-2.0, 7.5], [7.5]), True),
        (([0.0, 1.0], [0.5]), False),
        (([0.0, 0.5], [0.5, 1.0]), False),
        (([0.0, 1.0], [2.0]), False),
    ],
)
def test_two_values_over_all_owners(parts, binary):
    assert statistics(*[np.array([part]).T for part in parts]).binary.tolist() == [binary]


@given(st.permutations(range(5)), st.integers(0, 5), st.sampled_from([1, 2]))
def test_order_and_grouping_of_owners_give_the_same_bits(order, cut, number):
    draw = np.random.default_rng(6)
    tables = [draw.normal(size=(rows, 3)) * 10.0**rows for rows in (1, 2, 3, 5, 9)]
    task, known = spec(3), passes(tables)
    updates = [Update(f"a{owner}", measure(table, known, number), 1) for owner, table in enumerate(tables)]
    straight = digest(MOMENTS.finish(total(task, updates))["delta"])
    shuffled = [updates[place] for place in order]
    merged = MOMENTS.merge(total(task, shuffled[:cut]), total(task, shuffled[cut:]))
    assert digest(MOMENTS.finish(merged)["delta"]) == straight


def test_the_split_among_owners_does_not_matter_much_nor_do_large_offsets():
    column = np.random.default_rng(2).normal(size=(90, 1)) + 1e9
    whole, split = statistics(column), statistics(column[:1], column[1:13], column[13:])
    np.testing.assert_allclose(split.deviation, whole.deviation, rtol=1e-12)
    naive = np.sqrt((np.sum(column**2) - np.sum(column) ** 2 / 90) / 89)
    assert not np.isclose(naive, whole.deviation[0], rtol=1e-3)


def test_refused_releases():
    good = measure(np.ones((2, 3)), nothing(3), 1)
    for change, says in [
        ({"total": np.array([1.0, np.nan, 1.0])}, "'total' holds NaN"),
        ({"total": np.ones(2)}, "'total' has shape"),
        ({"count": np.ones(3, np.float32)}, "'count' has dtype float32"),
        ({"rows": np.ones((2, 3))}, r"unknown arrays \['rows'\]"),
    ]:
        with pytest.raises(RefusedUpdate, match=says):
            MOMENTS.add(MOMENTS.init(spec(3)), Update("a", {**good, **change}, 1))
    lacking = {name: array for name, array in good.items() if name != "count"}
    with pytest.raises(RefusedUpdate, match=r"lacks the arrays \['count'\]"):
        MOMENTS.add(MOMENTS.init(spec(3)), Update("a", lacking, 1))
    with pytest.raises(RefusedUpdate, match="weight 0"):
        MOMENTS.add(MOMENTS.init(spec(3)), Update("a", good, 0))


def test_too_little_to_say_anything():
    with pytest.raises(NoRows):
        measure(np.zeros((0, 2)), nothing(2), 1)
    with pytest.raises(Abandoned, match="no owner"):
        MOMENTS.finish(MOMENTS.init(spec(1)))
    with pytest.raises(Abandoned, match="statistics over 1 rows"):
        statistics(np.array([[1.0]]))
