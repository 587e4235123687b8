"""Each model of the zoo, trained by its plan and by torch on the same real batches: the same weights."""

from dataclasses import dataclass

import numpy as np
import pytest

from shoal.core.tree import Tree
from shoal.plan.exporting import export
from shoal.plan.proof import Reference, distance
from shoal.plan.run import Plan, Training
from shoal.train.arrays import read_arrays
from tests.plan import zoo

pytestmark = pytest.mark.slow

STEPS = 30
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Both:
    """What a plan made of some steps, and what torch did."""

    plan: Plan
    found: Tree
    expected: Tree
    losses: list[tuple[float, float]]
    rounding: Tree


def trained(name: str, plan: Plan) -> Both:
    task = zoo.task(name)
    params = read_arrays(task.model, task.arrays)
    training, reference = (
        Training(plan, params, seed=3, rate=task.plan.per_step),
        Reference(task, params, plan.manifest, 3),
    )
    losses = [(training.step(batch), reference.step(batch)) for batch in zoo.batches(name, STEPS, plan.manifest.rows)]
    return Both(plan, training.arrays, reference.arrays, losses, reference.rounding)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_plan_trains_as_torch_does(name: str) -> None:
    both = trained(name, export(zoo.task(name)))
    assert both.plan.manifest.rows is None  # any number of rows
    for ours, theirs in both.losses:
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    moved = 0
    for array, expected in both.expected.items():
        steady = ~both.rounding.get(array, np.zeros(expected.shape, np.bool_))
        assert distance(both.found[array][steady], expected[steady]) <= TOLERANCE, array
        moved += int(distance(expected, read_arrays(zoo.task(name).model, [array])[array]) > 0)
    assert moved > 0
    _check_outputs(name, both)


def _check_outputs(name: str, both: Both) -> None:
    (batch,) = zoo.batches(name, 1, 6)
    ours, theirs = both.plan.predict(both.found, batch["x"]), both.plan.predict(both.expected, batch["x"])
    assert distance(ours, theirs) <= TOLERANCE * 10
