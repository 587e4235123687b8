"""Folding a stack of updates gives the bits that adding them one by one gives."""

import numpy as np
import pytest

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.robust import Median
from shoal.algorithms.stacked import Stacked, fold, refusals, stack
from shoal.core.errors import RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec, weight_units
from shoal.core.types import Update

ARRAYS = {
    "weight": ArraySpec((3, 2), "float32"),
    "scalar": ArraySpec((), "float32"),
    "mean": ArraySpec((4,), "float64", Role.BUFFER),
    "seen": ArraySpec((), "int64", Role.COUNTER),
    "none": ArraySpec((0, 5), "float32"),
}
EXTRA = {"control": {"c": ArraySpec((2,), "float32")}}
SPEC = TaskSpec("t", ARRAYS, 1, RoundPlan(goal=8), extra=EXTRA, bounds=Bounds(max_abs=64, max_updates=64))


def updates(count: int) -> list[Update]:
    rng = np.random.default_rng(count)

    def values(spec: ArraySpec) -> np.ndarray:
        if spec.role is Role.COUNTER:
            return np.asarray(rng.integers(0, 9, spec.shape), spec.dtype)
        return np.asarray(rng.standard_normal(spec.shape) * 10, spec.dtype)

    return [
        Update(
            f"a{i}",
            {name: values(spec) for name, spec in ARRAYS.items()},
            int(rng.integers(1, weight_units(1000))),
            {"loss": float(i)},
            {"control": {"c": values(EXTRA["control"]["c"])}},
        )
        for i in range(count)
    ]


def one_by_one(aggregator: ExactMean | Median, given: list[Update]) -> dict[str, dict[str, bytes]]:
    state = aggregator.init(SPEC)
    for update in given:
        state = aggregator.add(state, update)  # type: ignore[arg-type]
    return bits(aggregator, state)


def bits(aggregator: ExactMean | Median, state: object) -> dict[str, dict[str, bytes]]:
    finished = aggregator.finish(state)  # type: ignore[arg-type]
    return {tree: {name: array.tobytes() for name, array in arrays.items()} for tree, arrays in finished.items()}


@pytest.mark.parametrize("aggregator", [ExactMean(), Median()], ids=str)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_folding_a_stack_gives_the_bits_of_adding_one_by_one(aggregator: ExactMean | Median, count: int):
    given = updates(count)
    whole = fold(aggregator, aggregator.init(SPEC), stack(given))
    parts = aggregator.merge(
        fold(aggregator, aggregator.init(SPEC), stack(given[: count // 2 + 1])),
        fold(aggregator, aggregator.init(SPEC), stack(given).take(range(count // 2 + 1, count))),
    )
    assert bits(aggregator, whole) == bits(aggregator, parts) == one_by_one(aggregator, given)


def test_a_model_wider_than_a_block_gives_the_same_bits():
    spec = TaskSpec("t", {"w": ArraySpec((70_000,), "float32")}, 1, RoundPlan(goal=3))
    rng = np.random.default_rng(0)
    given = [Update(f"a{i}", {"w": rng.standard_normal(70_000, np.float32)}, 1 << 16, {"loss": 0.0}) for i in range(3)]
    state = ExactMean().init(spec)
    for update in given:
        state = ExactMean().add(state, update)
    together = fold(ExactMean(), ExactMean().init(spec), stack(given))
    np.testing.assert_array_equal(together.sums["delta"]["w"], state.sums["delta"]["w"])


def test_what_add_would_refuse_is_found_by_position():
    given = updates(6)
    given[1].delta["weight"][0, 1] = np.nan  # type: ignore[index]
    given[3].delta["mean"][2] = 65.0  # type: ignore[index]
    given[4].delta["seen"][()] = -1  # type: ignore[index]
    given[5] = Update("a5", given[5].delta, weight_units(float(1 << 21)), {"loss": 0.0}, given[5].extra)
    found = refusals(SPEC, stack(given))
    assert {index: reason.split(":")[0] for index, reason in found.items()} == {
        1: "array 'weight' holds NaN or infinity",
        3: "array 'mean' holds 65",
        4: "counter 'seen' moved by -1",
        5: f"weight {weight_units(float(1 << 21))} (units of 2**-16)",
    }
    assert refusals(SPEC, stack(given).take([0, 2])) == {}


def test_a_sum_of_more_updates_than_the_bounds_allow_is_refused():
    with pytest.raises(RefusedUpdate, match="a sum of 65 updates"):
        fold(ExactMean(), ExactMean().init(SPEC), stack(updates(65)))


def test_a_stack_gives_back_its_updates():
    given = updates(3)
    again = stack(given)
    assert isinstance(again, Stacked)
    for index, update in enumerate(given):
        same = again.update(index)
        assert (same.assignment, same.weight, same.metrics) == (update.assignment, update.weight, update.metrics)
        np.testing.assert_array_equal(same.delta["weight"], update.delta["weight"])
        np.testing.assert_array_equal(same.extra["control"]["c"], update.extra["control"]["c"])
