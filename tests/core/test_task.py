"""What a TaskSpec refuses, and the arithmetic of its bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import TaskError, UnsupportedArray
from shoal.core.roles import Role
from shoal.core.task import SUM_BITS, ArraySpec, Bounds, LocalPlan, RoundPlan, TaskSpec, weight_units
from shoal.core.types import Costs

SPEC = TaskSpec("boston", {"w": ArraySpec((2, 3), "float32")}, rounds=4, plan=RoundPlan(goal=3, minimum=2))


def test_weights_are_rounded_to_units_of_two_to_the_minus_16():
    assert weight_units(1) == 65536
    assert weight_units(202) == 13238272
    assert weight_units(1 / 3) == 21845
    assert weight_units(2.0**-17) == 0


@pytest.mark.parametrize(
    ("bounds", "bits"),
    [
        (Bounds(), 62 - 10 - 36 - 10),
        (Bounds(max_abs=1.0, max_weight=1.0, max_updates=1), 62 - 0 - 16 - 0),
        (Bounds(max_abs=1.5, max_weight=3.0, max_updates=5), 62 - 1 - 18 - 3),
        (Bounds(max_abs=0.25, max_weight=2.0**-16, max_updates=2), 62 + 2 - 0 - 1),
        (Bounds(max_abs=2.0**16, max_weight=2.0**10, max_updates=2**20), 0),
    ],
)
def test_fraction_bits_by_hand(bounds, bits):
    assert bounds.fraction_bits == bits


@given(st.floats(1e-3, 1e6), st.floats(2.0**-16, 1e6), st.integers(1, 1 << 14))
def test_a_full_sum_at_the_bounds_fits_and_one_more_bit_would_not_be_wasted(max_abs, max_weight, max_updates):
    try:
        bounds = Bounds(max_abs, max_weight, max_updates)
    except TaskError:
        assert max_abs * max_weight * max_updates * 2**16 > 2.0 ** (SUM_BITS - 3)
        return
    extreme = max_abs * 2.0**bounds.fraction_bits * weight_units(max_weight) * max_updates
    assert extreme <= 2**SUM_BITS < 8 * extreme * 1.000001


@pytest.mark.parametrize(
    "values",
    [
        {"max_abs": 0.0},
        {"max_abs": -1.0},
        {"max_abs": float("inf")},
        {"max_abs": float("nan")},
        {"max_weight": 0.0},
        {"max_weight": 2.0**-18},
        {"max_weight": float("inf")},
        {"max_updates": 0},
    ],
)
def test_bounds_that_are_not_positive_numbers(values):
    with pytest.raises(TaskError, match="not all positive"):
        Bounds(**values)


def test_bounds_that_need_more_bits_than_a_sum_has():
    with pytest.raises(TaskError, match=r"max_abs=65536, max_weight=1024 and max_updates=2097152 need 63 bits.*62"):
        Bounds(max_abs=2.0**16, max_weight=2.0**10, max_updates=2**21)


@pytest.mark.parametrize(
    ("shape", "dtype", "role", "says"),
    [
        ((2,), "bfloat16", Role.TRAINABLE, "dtype bfloat16"),
        ((2,), "complex64", Role.FROZEN, "dtype complex64"),
        ((2, -1), "float32", Role.TRAINABLE, r"shape \(2, -1\)"),
        ((2,), "int64", Role.TRAINABLE, "trainable array of dtype int64"),
        ((2,), "bool", Role.BUFFER, "buffer array of dtype bool"),
        ((), "float32", Role.COUNTER, "counter of dtype float32"),
        ((), "uint8", Role.COUNTER, "counter of dtype uint8"),
    ],
)
def test_arrays_that_cannot_travel(shape, dtype, role, says):
    with pytest.raises(UnsupportedArray, match=says):
        ArraySpec(shape, dtype, role)


@pytest.mark.parametrize(("shape", "size"), [((), 1), ((3, 4), 12), ((5, 0), 0)])
def test_array_size(shape, size):
    assert ArraySpec(shape, "float64").size == size


@pytest.mark.parametrize("name", ["", "a/b", "a b", "../up", ".", "..", "x" * 65, "tab\t"])
def test_task_names_that_are_refused(name):
    with pytest.raises(TaskError, match="task name"):
        replace(SPEC, name=name)


@pytest.mark.parametrize("name", ["a", "boston-2.1_x", "Zürich", "x" * 64])
def test_task_names_that_are_taken(name):
    assert replace(SPEC, name=name).name == name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"seed": 2**53}, "seed=9007199254740992"),
        ({"bounds": Bounds(max_updates=2)}, "wants 3 updates a round, its bounds allow 2"),
        ({"extra": {"delta": {}}}, "extra tree 'delta'"),
        ({"extra": {"controls": {"c": ArraySpec((1,), "bool", Role.FROZEN)}}}, r"'controls' .* \['c'\]"),
    ],
)
def test_specs_that_are_refused(change, says):
    with pytest.raises(TaskError, match=says):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"goal": 0}, "goal=0"),
        ({"goal": 2, "minimum": 3}, "minimum=3"),
        ({"goal": 2, "minimum": 0}, "minimum=0"),
        ({"goal": 2, "deadline": 0.0}, "deadline=0"),
        ({"goal": 2, "lease": -1.0}, "lease=-1"),
        ({"goal": 2, "attempts": 0}, "attempts=0"),
        ({"goal": 2, "deadline": float("nan")}, "deadline=nan"),
    ],
)
def test_round_plans_that_are_refused(plan, says):
    with pytest.raises(TaskError, match=says):
        RoundPlan(**plan)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"proximal": -0.1}, "proximal=-0.1"),
        ({"proximal": float("nan")}, "proximal=nan"),
    ],
)
def test_local_plans_that_are_refused(plan, says):
    with pytest.raises(TaskError, match=says):
        LocalPlan(**plan)


def test_frozen_and_local_arrays_stay_at_home():
    arrays = {role.value: ArraySpec((), "int64" if role is Role.COUNTER else "float32", role) for role in Role}
    spec = replace(SPEC, arrays=arrays, extra={"controls": {"c": ArraySpec((1,), "float32")}})
    assert sorted(spec.travelling) == ["buffer", "counter", "trainable"]
    assert sorted(spec.trees) == ["controls", "delta"]


def test_costs_add_field_by_field():
    assert Costs(1.0, 2.0, 3.0, 4, 5) + Costs(10.0, 20.0, 30.0, 40, 50) == Costs(11.0, 22.0, 33.0, 44, 55)
