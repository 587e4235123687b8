"""The exact mean, against numpy in three lines and numbers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.algorithms.mean import BLOCK, ExactMean
from shoal.core.errors import Abandoned, RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec, weight_units
from shoal.core.tree import digest
from shoal.core.types import Update

MEAN = ExactMean()
SPEC = TaskSpec(
    "t",
    {
        "w": ArraySpec((2, 3), "float32"),
        "bias": ArraySpec((), "float64"),
        "running": ArraySpec((3,), "float32", Role.BUFFER),
        "seen": ArraySpec((), "int64", Role.COUNTER),
        "fixed": ArraySpec((4,), "float32", Role.FROZEN),
    },
    rounds=1,
    plan=RoundPlan(goal=2),
    extra={"controls": {"c": ArraySpec((2,), "float32")}},
)
SMALL = TaskSpec("t", {"w": ArraySpec((2,), "float64")}, 1, RoundPlan(goal=1), bounds=Bounds(max_updates=2))


def random_update(number: int) -> Update:
    draw = np.random.default_rng(number)
    delta = {
        "w": draw.normal(size=(2, 3)).astype(np.float32),
        "bias": np.array(draw.normal()),
        "running": draw.normal(size=3).astype(np.float32),
        "seen": np.array(draw.integers(0, 50)),
    }
    controls = {"c": draw.normal(size=2).astype(np.float32)}
    return Update(f"a{number}", delta, int(draw.integers(1, 500 << 16)), extra={"controls": controls})


def small(*values: float, weight: float = 1.0) -> Update:
    return Update("a", {"w": np.array(values)}, weight_units(weight))


def total(spec, updates):
    state = MEAN.init(spec)
    for update in updates:
        state = MEAN.add(state, update)
    return state


def digests(finished):
    return {tree: digest(arrays) for tree, arrays in finished.items()}


def test_by_hand():
    finished = MEAN.finish(total(SMALL, [small(1.0, -2.0, weight=1), small(5.0, 2.0, weight=3)]))
    assert finished["delta"]["w"].tolist() == [(1 + 15) / 4, (-2 + 6) / 4]


def test_equals_numpy():
    updates = [random_update(number) for number in range(7)]
    finished = MEAN.finish(total(SPEC, updates))
    weights = [update.weight for update in updates]
    for tree, name in [("delta", "w"), ("delta", "bias"), ("delta", "running"), ("controls", "c")]:
        rows = np.stack([update.trees[tree][name] for update in updates]).astype(np.float64)
        expected = np.average(rows, axis=0, weights=weights)
        np.testing.assert_allclose(finished[tree][name], expected, rtol=0, atol=2.0**-SPEC.bounds.fraction_bits)
    assert finished["delta"]["seen"] == max(int(update.delta["seen"]) for update in updates)


def test_results_are_arrays_of_the_shapes_of_the_task():
    finished = MEAN.finish(total(SPEC, [random_update(1)]))
    for tree, arrays in SPEC.trees.items():
        assert finished[tree].keys() == arrays.keys()
        for name, array in finished[tree].items():
            assert isinstance(array, np.ndarray)
            assert array.shape == arrays[name].shape
            assert array.dtype == (np.int64 if arrays[name].role is Role.COUNTER else np.float64)


@given(st.permutations(range(6)), st.integers(0, 6), st.integers(0, 6))
def test_any_order_and_grouping_gives_the_same_bits(order, first, second):
    updates = [random_update(number) for number in range(6)]
    straight = digests(MEAN.finish(total(SPEC, updates)))
    shuffled = [updates[place] for place in order]
    cuts = sorted([first, second])
    parts = [total(SPEC, shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, 6], strict=True)]
    left = MEAN.merge(MEAN.merge(parts[0], parts[1]), parts[2])
    assert digests(MEAN.finish(left)) == straight
    parts = [total(SPEC, shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, 6], strict=True)]
    right = MEAN.merge(parts[2], MEAN.merge(parts[1], parts[0]))
    assert digests(MEAN.finish(right)) == straight


def test_float_sums_would_depend_on_the_order():
    rows = [1.0, 1e-8, -1.0 + 1e-9, 3e-9, 0.1, -0.1]
    updates = [small(value, 0.0) for value in rows]
    spec = replace(SMALL, bounds=Bounds(max_updates=8))
    sums = {sum(rows), sum(reversed(rows)), sum(sorted(rows))}
    assert len(sums) > 1
    finished = [total(spec, each) for each in (updates, updates[::-1])]
    assert digests(MEAN.finish(finished[0])) == digests(MEAN.finish(finished[1]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    "bounds",
    [Bounds(1024.0, 1000.0, 16), Bounds(1.0, 2.0**-16, 1), Bounds(2.0**16, 2.0**10, 32), Bounds(3.7, 99.0, 31)],
)
def test_a_full_sum_at_the_extreme_of_the_bounds_does_not_overflow(sign, bounds):
    spec = replace(SMALL, bounds=bounds)
    extreme = Update("a", {"w": np.full(2, sign * bounds.max_abs)}, weight_units(bounds.max_weight))
    half = bounds.max_updates // 2
    merged = MEAN.merge(total(spec, [extreme] * half), total(spec, [extreme] * (bounds.max_updates - half)))
    np.testing.assert_allclose(MEAN.finish(merged)["delta"]["w"], sign * bounds.max_abs, rtol=1e-12)
    assert (np.sign(merged.sums["delta"]["w"]) == sign).all()


def test_products_are_rounded_to_the_nearest_unit_once():
    bounds = Bounds(max_abs=2.0**16, max_weight=2.0**10, max_updates=2**20)
    assert bounds.fraction_bits == 0
    spec = TaskSpec("t", {"w": ArraySpec((5,), "float64")}, 1, RoundPlan(goal=1), bounds=bounds)
    state = total(spec, [Update("a", {"w": np.array([0.75, -0.75, 0.5, 1.5, 0.25])}, 1)])
    assert state.sums["delta"]["w"].tolist() == [1, -1, 0, 2, 0]


def test_one_update_more_than_the_bounds_allow_is_refused():
    full = total(SMALL, [small(1.0, 1.0), small(1.0, 1.0)])
    with pytest.raises(RefusedUpdate, match=r"update 3 of a sum: .* allow 2"):
        MEAN.add(full, small(1.0, 1.0))


def test_merging_more_than_the_bounds_allow_is_refused():
    full = total(SMALL, [small(1.0, 1.0), small(1.0, 1.0)])
    with pytest.raises(RefusedUpdate, match=r"sum of 2 updates and one of 1: .* allow 2"):
        MEAN.merge(full, total(SMALL, [small(1.0, 1.0)]))


def test_a_refused_update_leaves_the_sum_as_it_was():
    state = total(SMALL, [small(1.0, 2.0)])
    with pytest.raises(RefusedUpdate, match="'w' holds NaN"):
        MEAN.add(state, small(7.0, float("nan")))
    assert MEAN.finish(state)["delta"]["w"].tolist() == [1.0, 2.0]


def test_nothing_to_average():
    with pytest.raises(Abandoned, match="no update"):
        MEAN.finish(MEAN.init(SMALL))


def test_arrays_beyond_one_block_and_not_contiguous():
    side = BLOCK + 3
    spec = TaskSpec("t", {"w": ArraySpec((side, 2), "float32")}, 1, RoundPlan(goal=1))
    values = np.arange(2 * side, dtype=np.float32).reshape(2, side) % 1000
    finished = MEAN.finish(total(spec, [Update("a", {"w": values.T}, weight_units(1))]))
    assert np.array_equal(finished["delta"]["w"], values.T)


NEAR_HALVES = st.integers(-(2**22), 2**22).map(lambda n: n / 2)


@given(
    st.lists(NEAR_HALVES | st.floats(-(2.0**22), 2.0**22), min_size=1, max_size=9),
    st.integers(1, 1 << 26),
    st.sampled_from([1, 1 << 9, 1 << 13]),
)
def test_however_large_the_products_they_are_rounded_as_by_rint(values, weight, updates):
    bounds = Bounds(max_abs=2.0**22, max_weight=1024.0, max_updates=updates)
    spec = TaskSpec("t", {"w": ArraySpec((len(values),), "float64")}, 1, RoundPlan(goal=1), bounds=bounds)
    found = total(spec, [Update("a", {"w": np.array(values)}, weight)]).sums["delta"]["w"]
    scale = float(weight) * 2.0**bounds.fraction_bits
    assert found.tolist() == [int(np.rint(np.float64(value) * scale)) for value in values]
