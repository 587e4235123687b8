"""The log lines of a real round: which they are, what they name, and what they never say."""

import io
import json
import logging
import sys

import pytest
import structlog

from shoal.cli.logs import log_to_stderr
from shoal.testing.clock import ManualClock
from tests.server.conftest import delta, report_body, spec
from tests.server.homes import serving, train


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    def replace(made):
        monkeypatch.setattr(sys, "stderr", made)
        return made

    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield replace
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def lines(output):
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_each_step_of_a_round_is_a_line_with_task_round_and_device(tmp_path, stderr):
    output = stderr(io.StringIO())
    log_to_stderr(as_json=False)  # nobody watches: JSON all the same
    with serving(tmp_path, ManualClock()) as served:
        task = served.publish(spec(rounds=2, goal=1)).id
        given = served.check_in("bob").assignment.id
        assert served.report("bob", given, report_body({**delta(1.0), "w": delta(99.0)["w"]})).status_code == 422
        given = served.check_in("alice").assignment.id
        served.client.post(
            f"/v1/assignments/{given}/release", json={"reason": "on battery"}, headers=served.device("alice")
        )
        given = served.check_in("carol").assignment.id
        assert served.report("carol", given, report_body(delta(1.0))).status_code == 200
        served.versions(task, after=0)
        train(served, task, range(2, 3))
        secrets = [served.admin, served.enrolment]
    said = [(line["event"], line.get("task"), line.get("round"), line.get("device")) for line in lines(output)]
    expected = [
        ("assigned", task, 1, "bob"),
        ("report refused", task, 1, "bob"),
        ("assigned", task, 1, "alice"),
        ("released", task, 1, "alice"),
        ("assigned", task, 1, "carol"),
        ("report accepted", task, 1, "carol"),
        ("combining", task, 1, None),
        ("published", task, 1, None),
        ("assigned", task, 2, "bob"),
        ("report accepted", task, 2, "bob"),
        ("combining", task, 2, None),
        ("published", task, 2, None),
        ("task over", task, 2, None),
    ]
    assert [step for step in said if step in expected] == expected
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines(output))
    (refused,) = [line for line in lines(output) if line["event"] == "report refused"]
    assert (refused["code"], refused["level"]) == ("refused_update", "warning")
    assert "99" in refused["reason"]
    assert not [secret for secret in secrets if secret in output.getvalue()]


def test_a_person_who_watches_reads_text(stderr):
    output = stderr(Terminal())
    log_to_stderr(as_json=False)
    structlog.get_logger().info("published", task="boston-1", round=3)
    assert "published" in output.getvalue()
    assert not output.getvalue().startswith("{")


def test_secrets_are_hidden_wherever_they_stand(stderr):
    output = stderr(io.StringIO())
    log_to_stderr(as_json=True)
    token = "shoal_admin_" + "x" * 43
    structlog.get_logger().warning("refused", reason=f"the token {token} has expired")
    logging.getLogger("some.library").warning("called with %s", token)
    try:
        raise ValueError(f"bad {token}")
    except ValueError as error:
        structlog.get_logger().error("stopped", exc_info=error)
    assert token not in output.getvalue()
    assert [line["event"] for line in lines(output)] == ["refused", "called with shoal_admin_...", "stopped"]
    assert "ValueError: bad shoal_admin_..." in lines(output)[2]["exception"]
