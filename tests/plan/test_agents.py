"""A round in which one owner trains with the task's code and torch, and another by its plan alone."""

from dataclasses import replace

import numpy as np
import pytest

import shoal
from shoal.core.errors import PlanError
from shoal.core.task import RoundPlan
from shoal.plan.client import followed
from shoal.train.task import compile_task
from tests.agent.conftest import federation as federation
from tests.agent.federation import Federation, line_data, line_task

pytestmark = pytest.mark.slow


def test_torch_and_plan_make_one_version_together(federation: Federation) -> None:
    federation.start("alice")
    federation.start("bob", line_data("bob"), None, plans=("line",))
    run = federation.researcher.publish(line_task(), rounds=2, goal=2)
    versions = list(run.follow(within=60))
    assert versions[-1].number == 2
    assert federation.researcher.plan("line").digest == run.spec.exported
    assert len(federation.reported(run.id)) == 4


def test_a_rule_and_layers_that_stay_by_plan(federation: Federation) -> None:
    task = line_task(strategy=replace(shoal.fednova(), staying=("layers.2.*",)))
    rows = {name: line_data(name, 12 + 5 * i) for i, name in enumerate(("alice", "bob"))}
    for name, data in rows.items():
        federation.start(name, data, None, plans=("line",))
    run = federation.researcher.publish(task, rounds=3, goal=2, seed=1)
    assert list(run.follow(within=60))[-1].number == 3
    clients = {name: data.arrays for name, data in rows.items()}
    alone = shoal.simulate(task, clients, rounds=3, seed=1, trainer="loop")
    found = run.params()
    for name, array in alone.params.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)
    kept = federation.home("bob").states.of(run.id)
    assert set(kept) == {"layers.2.weight", "layers.2.bias"}
    for name, array in kept.items():
        np.testing.assert_allclose(array, alone.personal["bob"][name], atol=1e-5)


@pytest.mark.parametrize(
    "strategy", [shoal.scaffold(participation=1.0), shoal.feddyn(participation=1.0), shoal.ditto()]
)
def test_rules_that_a_plan_cannot_follow_are_refused(strategy: shoal.Strategy) -> None:
    spec = compile_task(line_task(strategy=strategy), rounds=1, plan=RoundPlan(1)).spec
    with pytest.raises(PlanError, match=f"the local rule '{strategy.name}', which the training step of a plan"):
        followed(spec)
