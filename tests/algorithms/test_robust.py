"""The coordinate-wise median, against numpy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.robust import Median
from shoal.core.errors import Abandoned, RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec, weight_units
from shoal.core.tree import digest
from shoal.core.types import Update

MEDIAN = Median()
SPEC = TaskSpec(
    "t",
    {
        "w": ArraySpec((2,), "float32"),
        "bias": ArraySpec((), "float32"),
        "running": ArraySpec((1,), "float32", Role.BUFFER),
        "seen": ArraySpec((), "int64", Role.COUNTER),
    },
    rounds=1,
    plan=RoundPlan(goal=1),
    bounds=Bounds(max_updates=8),
    extra={"controls": {"c": ArraySpec((1,), "float32"), "b": ArraySpec((1,), "float32", Role.BUFFER)}},
)


def update(number: int, first: float, second: float, weight: float = 1.0) -> Update:
    delta = {
        "w": np.array([first, second], np.float32),
        "bias": np.array(first, np.float32),
        "running": np.array([first], np.float32),
        "seen": np.array(number),
    }
    extra = {"controls": {"c": np.array([second], np.float32), "b": np.array([second], np.float32)}}
    return Update(f"a{number}", delta, weight_units(weight), extra=extra)


def total(updates):
    state = MEDIAN.init(SPEC)
    for each in updates:
        state = MEDIAN.add(state, each)
    return state


def test_by_hand_each_array_by_its_role():
    finished = MEDIAN.finish(total([update(1, 1, 10), update(2, 2, -30, weight=2), update(3, 900, 20)]))
    delta, controls = finished["delta"], finished["controls"]
    assert delta["w"].tolist() == [2.0, 10.0]
    assert delta["bias"].tolist() == 2.0
    assert delta["running"].tolist() == [(1 + 2 * 2 + 900) / 4]
    assert delta["seen"].tolist() == 3
    assert controls["c"].tolist() == [10.0]
    assert controls["b"].tolist() == [(10 - 60 + 20) / 4]
    assert all(isinstance(array, np.ndarray) for tree in finished.values() for array in tree.values())


def test_an_even_number_takes_the_middle_of_the_two():
    assert MEDIAN.finish(total([update(1, 1, 5), update(2, 4, 7)]))["delta"]["w"].tolist() == [2.5, 6.0]


def test_equals_numpy():
    rows = np.random.default_rng(3).normal(size=(7, 2)).astype(np.float32)
    finished = MEDIAN.finish(total([update(number, *row) for number, row in enumerate(rows)]))
    assert np.array_equal(finished["delta"]["w"], np.median(rows.astype(np.float64), axis=0))


def test_a_minority_cannot_move_it_far():
    honest = [update(number, 0.9 + number / 50, -1.0) for number in range(5)]
    liars = [update(number, 1000.0, 1000.0, weight=1000) for number in range(5, 8)]
    moved = MEDIAN.finish(total(honest + liars))["delta"]["w"]
    assert 0.9 <= moved[0] <= 1.0
    assert moved[1] == -1.0
    mean = ExactMean().init(SPEC)
    for each in honest + liars:
        mean = ExactMean().add(mean, each)
    assert ExactMean().finish(mean)["delta"]["w"][0] > 900


@given(st.permutations(range(5)), st.integers(0, 5))
def test_any_order_and_grouping_gives_the_same_bits(order, cut):
    draw = np.random.default_rng(8)
    updates = [update(number, *draw.normal(size=2)) for number in range(5)]
    straight = MEDIAN.finish(total(updates))
    shuffled = [updates[place] for place in order]
    merged = MEDIAN.finish(MEDIAN.merge(total(shuffled[:cut]), total(shuffled[cut:])))
    assert {tree: digest(merged[tree]) for tree in merged} == {tree: digest(straight[tree]) for tree in straight}


def test_adding_leaves_the_rows_of_an_earlier_state_alone():
    one = total([update(1, 1, 1)])
    two = MEDIAN.add(one, update(2, 3, 3))
    assert (len(one.rows), len(two.rows)) == (1, 2)


def test_refusals():
    with pytest.raises(Abandoned):
        MEDIAN.finish(MEDIAN.init(SPEC))
    with pytest.raises(RefusedUpdate, match="'w' holds NaN"):
        MEDIAN.add(MEDIAN.init(SPEC), update(1, 1.0, float("nan")))
    full = total([update(number, 1, 1) for number in range(8)])
    with pytest.raises(RefusedUpdate, match="allow 8"):
        MEDIAN.add(full, update(9, 1, 1))
    with pytest.raises(RefusedUpdate, match="allow 8"):
        MEDIAN.merge(full, total([update(9, 1, 1)]))
