"""What people type about rounds: what became of every device, and tasks held, prolonged and ended."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from shoal.cli.main import app
from shoal.core.task import RoundPlan
from shoal.core.types import Costs
from shoal.researcher.coordinator import Coordinator
from shoal.wire.http import Connection
from tests.server.conftest import Served, delta, report_body, served, spec

__all__ = ["served"]

PLAN = RoundPlan(goal=2, minimum=1, deadline=60.0, lease=20.0, confidence=0.999)


@pytest.fixture
def shoal(served: Served, monkeypatch: pytest.MonkeyPatch):
    """The command line, whose calls go to the coordinator of this test."""

    def connect(url: str, *, token: str, ca: object = None) -> Coordinator:
        return Coordinator(Connection(url, token, transport=served.client._transport))

    monkeypatch.setattr(Coordinator, "connect", connect)
    monkeypatch.setenv("COLUMNS", "200")
    environment = {"SHOAL_URL": "http://shoal", "SHOAL_TOKEN": served.admin}

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    return run


def rows(shoal, *arguments: str) -> list[dict[str, object]]:
    # the coordinator of this test is in this process, and so is its log
    return [json.loads(line) for line in shoal(*arguments, "--json").splitlines() if line.startswith("{")]


def test_a_round_tells_who_was_selected_reported_dropped_late_and_refused_and_why(served: Served, shoal):
    served.publish(spec(rounds=2, plan=PLAN))
    names = ("ann", "bob", "carl", "dora", "eve")
    given = {name: served.check_in(name).assignment.id for name in names}
    served.clock.advance(3.0)
    bad = {**delta(1.0), "w": np.full((2, 3), np.nan, np.float32)}
    assert served.report("bob", given["bob"], report_body(bad)).status_code == 422
    released = f"/v1/assignments/{given['dora']}/release"
    sent = served.client.post(released, json={"reason": "on battery"}, headers=served.device("dora"))
    assert sent.status_code == 200
    for name in ("eve", "ann"):
        renew = served.client.post(f"/v1/assignments/{given[name]}/renew", headers=served.device(name))
        assert renew.status_code == 200
    served.clock.advance(18.0)  # carl's lease is over
    costs = Costs(bytes_up=500, bytes_down=900)
    assert served.report("ann", given["ann"], report_body(delta(1.0), costs=costs)).status_code == 200
    served.clock.advance(1.0)
    assert served.report("eve", given["eve"], report_body(delta(2.0), costs=costs)).status_code == 200
    assert served.versions("plain-1", after=0).versions
    assert served.report("carl", given["carl"], report_body(delta(1.0))).status_code == 410

    first, second = rows(shoal, "tasks", "rounds", "plain")
    size = first.pop("update_bytes")
    assert size > 300
    [(why, times)] = first.pop("refused").items()
    assert (times, why.startswith("refused_update: "), "'delta/w'" in why) == (1, True, True)
    assert first.pop("since") == served.clock()
    assert first == {
        "round": 1,
        "attempt": 1,
        "places": 5,
        "outcome": "committed",
        "reason": "",
        "selected": 5,
        "reported": 2,
        "carried": 0,
        "late": 1,
        "dropped": {"released: on battery": 1, "its lease ran out": 1},
        "bytes_up": 1000,
        "bytes_down": 1800,
        "full": True,
        "selecting": 0.0,
        "collecting": 22.0,
        "committing": 0.0,
    }
    assert (second["round"], second["outcome"], second["selected"]) == (2, "open", 0)
    table = shoal("tasks", "rounds", "plain")
    for words in ("5 of 5", "1 its lease ran out; 1 released: on battery", "1 refused_update", "0.0 + 22.0 + 0.0"):
        assert words in table


def test_a_task_is_paused_resumed_extended_and_cancelled_by_command(served: Served, shoal):
    served.publish(spec(rounds=1, plan=replace(PLAN, goal=1, confidence=0.0)))
    [paused] = rows(shoal, "tasks", "pause", "plain")
    assert paused["phase"] == "paused"
    assert served.check_in("ann").assignment is None
    [resumed] = rows(shoal, "tasks", "resume", "plain")
    assert resumed["phase"] == "collecting"
    given = served.check_in("ann").assignment
    assert served.report("ann", given.id, report_body(delta(1.0))).status_code == 200
    assert served.versions("plain-1", after=0).status.phase == "finished"
    assert shoal("tasks", "extend", "plain", "--to", "3") == "plain-1 collecting: version 1 of 3\n"
    assert "not fewer than 2" in shoal("tasks", "extend", "plain", "--to", "2", code=1)
    [over] = rows(shoal, "tasks", "cancel", "plain", "--reason", "enough")
    assert (over["phase"], over["reason"]) == ("cancelled", "enough")
    assert "is cancelled" in shoal("tasks", "pause", "plain", code=1)
    assert [row["outcome"] for row in rows(shoal, "tasks", "rounds", "plain")] == ["committed", "ended"]
