"""`shoal statistics` and `shoal evaluate` at a real coordinator; only the line to it is the test's."""

import json

import pytest
from typer.testing import CliRunner

from shoal.agent.policy import Policy
from shoal.cli.main import app
from shoal.researcher.coordinator import Coordinator
from tests.agent import test_evaluation as lines
from tests.agent.federation import Federation
from tests.agent.test_statistics import VALUES, table


@pytest.fixture
def typed(federation: Federation, monkeypatch: pytest.MonkeyPatch):
    connect = Coordinator.connect
    monkeypatch.setattr(
        Coordinator, "connect", lambda url, *, token, ca: connect(url, token=token, transport=federation.transport)
    )
    given = ["--url", "http://shoal", "--token", federation.admin]

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, *given])
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.mark.slow
def test_statistics_with_bins_and_quantiles(federation: Federation, typed):
    federation.start("bob", table(0), code=None, policy=Policy(distributions=True))
    words = ("statistics", "age", "--owners", "1", "--bins", "4", "--quantile", "0.5")
    found = json.loads(typed(*words, "--json").strip().splitlines()[-1])  # the coordinator logs in this process too
    assert (found["column"], found["count"], sum(found["counts"])) == ("age", 20, 20)
    assert found["mean"] == pytest.approx(VALUES[::2, 0].mean())
    assert "age: " in typed(*words)
    assert "bins from" in typed(*words)


@pytest.mark.slow
def test_evaluate(federation: Federation, typed):
    for name in lines.ROWS:
        lines.start(federation, name)
    lines.trained(federation)
    found = json.loads(
        typed("evaluate", "line-1@1", "--owners", "2", "--metric", "mae", "--json").strip().splitlines()[-1]
    )  # the coordinator logs in this process too
    assert list(found["metrics"]) == ["mae"]
    assert "over 30 rows that 2 owners hold out" in typed("evaluate", "line-1", "--owners", "2")
