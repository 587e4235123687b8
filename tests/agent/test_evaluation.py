"""Versions measured on the rows that owners hold out."""

import numpy as np
import pytest

from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.core.errors import Abandoned
from shoal.core.seeds import derive, permutation
from shoal.train.data import ClientData
from shoal.train.evaluate import evaluate
from tests.agent.federation import Federation, line_data, line_task

ROWS = {"bob": 40, "alice": 80}


def mean_error(model, batch):
    return (model(batch["x"]) - batch["y"]).abs().mean()


def task():
    return line_task(metrics={"mae": mean_error})


def held_out(name: str) -> ClientData:
    rows = ROWS[name]
    held = permutation(derive(0, name, "holdout"), rows)[: rows // 4]
    return ClientData(name, {key: array[held] for key, array in line_data(name, rows).arrays.items()})


def start(federation: Federation, name: str, policy: Policy | None = None, holdout: float = 0.25) -> None:
    federation.start(
        name, line_data(name, ROWS[name]), task, policy=policy or Policy(), settings=LocalSettings(holdout)
    )


def trained(federation: Federation):
    run = federation.researcher.publish(task(), rounds=2, goal=2, plan=False)
    list(run.follow())
    return run


@pytest.mark.slow
def test_the_mean_over_owners_is_that_over_their_pooled_rows_and_no_update_travels(federation: Federation):
    for name in ROWS:
        start(federation, name)
    run = trained(federation)
    found = federation.researcher.evaluate("line-1@1", goal=2, metrics=("loss", "mae"))
    parts = {name: evaluate(task(), run.params(1), held_out(name)) for name in ROWS}
    for metric in ("loss", "mae"):
        pooled = (10 * parts["bob"][metric] + 20 * parts["alice"][metric]) / 30
        assert found.metrics[metric] == pytest.approx(pooled, rel=1e-12)
    assert (found.rows, found.owners) == (30, 2)
    newest = federation.researcher.evaluate("line", goal=2)
    assert newest.metrics["loss"] < found.metrics["loss"]
    reports = federation.reported("line-evaluation-1")
    assert {report.size for report in reports} == {max(report.size for report in reports)}
    assert reports[0].size < 400
    logged = [release for release in federation.home("bob").releases() if release.kind == "evaluation"]
    assert [(release.task, release.what) for release in logged] == [
        ("line-evaluation-1", ("metric loss", "metric mae")),
        ("line-evaluation-2", ("metric loss",)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "holdout", "goal", "metric", "why"),
    [
        (Policy(), 0.25, 1, "loss", "of one owner alone: this owner asks for a mean over at least 2"),
        (Policy(minimum_rows=1), 0.0, 1, "loss", "no rows are held out here: start with --holdout 0.2"),
        (Policy(own_metrics=True), 0.25, 1, "f1", "no metric 'f1': the task's code measures loss, mae"),
    ],
)
def test_an_owner_refuses_what_it_does_not_allow_or_have(federation: Federation, policy, holdout, goal, metric, why):
    federation.researcher.publish(task(), rounds=1, goal=1, plan=False)
    start(federation, "bob", policy, holdout)
    list(federation.researcher.run("line").follow())
    with pytest.raises(Abandoned, match="line-evaluation-1"):
        federation.researcher.evaluate("line-1", goal=goal, metrics=(metric,), deadline=1.0)
    assert why in federation.said.until("refused round 1 of line-evaluation-1")


@pytest.mark.slow
def test_an_owner_who_keeps_metrics_back_is_not_asked(federation: Federation):
    federation.researcher.publish(task(), rounds=1, goal=1, plan=False)
    start(federation, "bob", Policy(evaluation=False))
    list(federation.researcher.run("line").follow())
    with pytest.raises(Abandoned, match="line-evaluation-1"):
        federation.researcher.evaluate("line-1", goal=1, deadline=0.2)
    assert [release.kind for release in federation.home("bob").releases()] == ["update"]


def test_an_owner_may_let_its_own_metrics_go(federation: Federation):
    federation.researcher.publish(task(), rounds=1, goal=1, plan=False)
    start(federation, "bob", Policy(own_metrics=True))
    run = federation.researcher.run("line")
    list(run.follow())
    found = federation.researcher.evaluate("line-1", goal=1)
    assert np.isclose(found.metrics["loss"], evaluate(task(), run.params(), held_out("bob"))["loss"], rtol=1e-12)
