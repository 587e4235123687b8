"""Each refusal of an update names the array and the value."""

from dataclasses import replace

import numpy as np
import pytest

from shoal.core.check import check_update
from shoal.core.errors import RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec, weight_units
from shoal.core.types import Update

SPEC = TaskSpec(
    "t",
    {
        "w": ArraySpec((2,), "float32"),
        "mean": ArraySpec((2,), "float64", Role.BUFFER),
        "seen": ArraySpec((), "int64", Role.COUNTER),
        "none": ArraySpec((0, 3), "float32"),
        "fixed": ArraySpec((9,), "float32", Role.FROZEN),
    },
    rounds=1,
    plan=RoundPlan(goal=1),
    bounds=Bounds(max_abs=4.0, max_weight=10.0, max_updates=8),
)
DELTA = {
    "w": np.array([4.0, -4.0], np.float32),
    "mean": np.zeros(2),
    "seen": np.array(3),
    "none": np.zeros((0, 3), np.float32),
}
UPDATE = Update("a1", DELTA, weight_units(10))


def refused(update: Update, spec: TaskSpec = SPEC) -> str:
    with pytest.raises(RefusedUpdate) as caught:
        check_update(spec, update)
    return str(caught.value)


def with_array(name: str, array: np.ndarray) -> Update:
    return replace(UPDATE, delta=DELTA | {name: array})


def test_an_update_at_the_bounds_is_taken():
    check_update(SPEC, UPDATE)
    check_update(SPEC, replace(UPDATE, weight=1))


@pytest.mark.parametrize("weight", [0, -5, weight_units(10) + 1])
def test_weight_out_of_bounds(weight):
    assert f"weight {weight} " in refused(replace(UPDATE, weight=weight))
    assert "1 to 655360" in refused(replace(UPDATE, weight=weight))


def test_missing_array():
    delta = {name: array for name, array in DELTA.items() if name != "mean"}
    assert "tree 'delta' lacks the arrays ['mean']" in refused(replace(UPDATE, delta=delta))


@pytest.mark.parametrize("name", ["bias", "fixed"])
def test_array_that_was_not_asked_for(name):
    assert f"unknown arrays ['{name}']" in refused(with_array(name, np.zeros(9, np.float32)))


def test_shape():
    said = refused(with_array("w", np.zeros((1, 2), np.float32)))
    assert said == "array 'w' has shape (1, 2): the task says (2,)"


def test_dtype():
    assert refused(with_array("w", np.zeros(2))) == "array 'w' has dtype float64: the task says float32"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w", "mean"])
def test_values_that_are_not_finite(name, bad):
    array = np.array([bad, 1.0], DELTA[name].dtype)
    assert f"array '{name}' holds NaN or infinity" in refused(with_array(name, array))


@pytest.mark.parametrize("value", [4.5, -4.5])
def test_value_beyond_max_abs(value):
    said = refused(with_array("mean", np.array([0.0, value])))
    assert said.startswith("array 'mean' holds 4.5: the task takes values up to 4;")


def test_counter_that_goes_back():
    assert "counter 'seen' moved by -1" in refused(with_array("seen", np.array(-1)))


def test_counter_may_pass_max_abs():
    check_update(SPEC, with_array("seen", np.array(10**12)))


def test_extra_trees_are_checked_by_name():
    spec = replace(SPEC, extra={"controls": {"c": ArraySpec((1,), "float32")}})
    assert "update with trees ['delta']: the task asks for ['controls', 'delta']" in refused(UPDATE, spec)
    good = replace(UPDATE, extra={"controls": {"c": np.ones(1, np.float32)}})
    check_update(spec, good)
    assert "update with trees ['controls', 'delta']" in refused(good)
    assert "array 'c' holds 5" in refused(replace(good, extra={"controls": {"c": np.full(1, 5, np.float32)}}), spec)


def test_float16_beyond_its_range_is_refused_not_wrapped():
    spec = replace(SPEC, arrays={"h": ArraySpec((1,), "float16")})
    with np.errstate(over="ignore"):
        too_large = np.array([1e6]).astype(np.float16)
    assert "NaN or infinity" in refused(replace(UPDATE, delta={"h": too_large}), spec)
