"""A round in which one owner trains with the task's code and torch, and another by its plan alone."""

from dataclasses import replace

import numpy as np
import pytest

import shoal
from shoal.core.errors import PlanError
from shoal.core.task import RoundPlan
from shoal.plan.client import Part, followed, take_part
from shoal.plan.exporting import export
from shoal.train.arrays import read_arrays
from shoal.train.client import ClientTrainer
from shoal.train.data import ClientData
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


def test_the_loss_of_the_version_by_plan() -> None:
    task = line_task(strategy=shoal.qfedavg(q=2.0))
    rows, params = line_data("alice", 14).arrays, read_arrays(task.model, task.arrays)
    client = ClientData("alice", rows, seed=5)
    wanted, _ = ClientTrainer(task).train(params, {}, task.plan, 1, client, {})
    found, kept = take_part(export(task), task.arrays, task.plan, params, {}, Part(rows, {}, 5, 1), lambda: None)
    assert kept == {}
    assert found.weight == pytest.approx(wanted.weight, rel=1e-4)
    assert found.extra["denominator"]["value"] == pytest.approx(float(wanted.extra["denominator"]["value"]), rel=1e-4)
    for name, array in wanted.delta.items():
        np.testing.assert_allclose(found.delta[name], array, atol=1e-5)
