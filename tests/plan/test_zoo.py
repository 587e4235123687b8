"""Each model of the zoo, trained by its plan and by torch on the same real batches: the same weights."""

import gzip

import numpy as np
import pytest

from shoal.core.roles import Role
from shoal.core.tree import Array
from shoal.plan.proof import distance
from shoal.plan.run import Plan, Training
from tests.plan import zoo
from tests.plan.exported import SEED, STEPS, exported

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5


def section(case: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in case.items() if name.startswith(prefix)}


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_plan_trains_as_torch_does(name: str) -> None:
    plan, case = exported(name)
    assert plan.manifest.rows is None  # any number of rows
    begun, expected = section(case, "params/"), section(case, "after/")
    training = Training(plan, begun, seed=SEED)
    for step in range(STEPS):
        training._lr = float(case["rate"][step])
        loss = training.step(section(case, f"batch/{step}/"))
        assert loss == pytest.approx(case["loss"][step], rel=1e-4, abs=1e-6)
    moved = 0
    for array in expected:
        steady = case[f"steady/{array}"].astype(bool)
        assert distance(training.arrays[array][steady], expected[array][steady]) <= TOLERANCE, array
        moved += int(distance(expected[array], begun[array]) > 0)
    assert moved > 0
    _check_outputs(name, plan, training.arrays, expected)


def _check_outputs(name: str, plan: Plan, found: dict[str, Array], expected: dict[str, Array]) -> None:
    """Biases before a norm, whose true gradient is 0, are compared by what the model gives."""
    (batch,) = zoo.batches(name, 1, 6)
    ours, theirs = plan.predict(found, batch["x"]), plan.predict(expected, batch["x"])
    assert distance(ours, theirs) <= TOLERANCE * 10


@pytest.mark.parametrize(("name", "travelling"), [("adapter", {"down", "up"}), ("frozen", None)])
def test_what_is_frozen_neither_moves_nor_travels(name: str, travelling: set[str] | None) -> None:
    plan, case = exported(name)
    frozen = {entry.name for entry in plan.manifest.arrays if entry.role is Role.FROZEN}
    assert frozen
    outputs = plan.manifest.graphs["train"].outputs
    for array in frozen:
        assert f"after/array/{array}" not in outputs
        np.testing.assert_array_equal(case[f"params/{array}"], case[f"after/{array}"])
    if travelling is not None:
        assert {entry.name for entry in plan.manifest.arrays if entry.role.travels} == travelling


def test_the_plan_of_a_small_model_is_small() -> None:
    plan, _ = exported("mlp-sgd")
    assert len(gzip.compress(plan.encoded(), 9)) < 10_000
