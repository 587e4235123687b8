"""Publishing with a strategy that has rounds of its own, and steering a task while it runs."""

from dataclasses import replace

import msgspec
import pytest
from typer.testing import CliRunner

import shoal
from shoal.cli.main import app
from shoal.core.errors import Conflict, TaskError
from shoal.researcher.coordinator import Coordinator
from tests.agent.federation import Federation, line_task


def test_a_buffered_task_is_trained_by_one_owner_who_comes_again(federation: Federation):
    federation.start("bob")
    task = replace(line_task(), strategy=shoal.fedbuff(size=2, concurrency=3))
    run = federation.researcher.publish(task, rounds=2, plan=False)
    assert [version.reports for version in run.follow()] == [2, 2]
    assert [record.reported for record in federation.researcher.rounds(run.id)] == [2, 2]


def test_a_task_is_paused_resumed_extended_and_accounted_for(federation: Federation):
    researcher = federation.researcher
    run = researcher.publish(line_task(), rounds=1, goal=1, plan=False)
    assert researcher.pause(run.id).phase == "paused"
    assert researcher.resume(run.id).phase == "collecting"
    federation.start("bob")
    assert [version.number for version in run.follow()] == [1]
    assert researcher.extend(run.id, 2).rounds == 2
    assert [version.number for version in run.follow(1)] == [2]
    with pytest.raises(Conflict, match="finished"):
        researcher.pause(run.id)
    assert [(record.outcome, record.selected) for record in researcher.rounds(run.id)] == [("committed", 1)] * 2


def test_a_task_ends_early_when_nothing_improves(federation: Federation):
    federation.start("bob")
    stop = shoal.EarlyStop("loss", patience=1, min_improvement=1e9)
    run = federation.researcher.publish(line_task(), rounds=50, goal=1, stop=stop, plan=False)
    assert [version.number for version in run.follow()] == [1, 2]
    assert "'loss' has not improved" in federation.researcher.status(run.id).reason


def test_publish_takes_an_early_end_as_it_is_typed(federation: Federation, monkeypatch: pytest.MonkeyPatch, tmp_path):
    connect, transport = Coordinator.connect, federation.transport
    monkeypatch.setattr(
        Coordinator, "connect", lambda url, *, token, ca: connect(url, token=token, transport=transport)
    )
    code = tmp_path / "line.py"
    code.write_text("from tests.agent.federation import line_task\n\ntask = line_task()\n")
    federation.start("bob")
    stop = ["--stop-metric", "loss", "--patience", "1", "--min-improvement", "1e9"]
    given = [f"{code}:task", "--rounds", "50", "--owners", "1", "--no-plan", *stop, "--watch", "--json"]
    done = CliRunner().invoke(app, ["publish", *given, "--url", "http://shoal", "--token", federation.admin])
    assert done.exit_code == 0, done.output
    told = [msgspec.json.decode(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["round"] for line in told if "round" in line] == [1, 2]
    status = federation.researcher.status(told[0]["task"])
    assert (status.phase, "'loss' has not improved by more than" in status.reason) == ("finished", True)


def test_a_goal_is_needed_and_must_be_the_buffers_size(federation: Federation):
    with pytest.raises(TaskError, match="has no goal"):
        federation.researcher.publish(line_task(), rounds=1, plan=False)
    with pytest.raises(TaskError, match="a goal of 3 with a buffer of 2"):
        federation.researcher.publish(
            replace(line_task(), strategy=shoal.fedbuff(size=2)), rounds=1, goal=3, plan=False
        )


def test_the_commands_say_the_same(federation: Federation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Coordinator, "connect", lambda *_, **__: federation.researcher)
    run = federation.researcher.publish(line_task(), rounds=1, goal=1, plan=False)

    def shoal_tasks(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["tasks", *arguments, "--url", "http://shoal", "--token", "t"])
        assert done.exit_code == 0, done.output
        return done.output

    assert shoal_tasks("pause", run.id) == f"{run.id} paused: version 0 of 1\n"
    assert msgspec.json.decode(shoal_tasks("resume", run.id, "--json"))["phase"] == "collecting"
    assert shoal_tasks("extend", run.id, "--to", "3") == f"{run.id} collecting: version 0 of 3\n"
    assert "0 of 1" in shoal_tasks("rounds", run.id)
    assert msgspec.json.decode(shoal_tasks("rounds", run.id, "--json"))["outcome"] == "open"
