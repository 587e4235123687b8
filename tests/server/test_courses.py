"""Rounds that take long, over HTTP: late and repeated reports, buffered rounds, pause, extend, and several tasks."""

from dataclasses import replace

import msgspec
import numpy as np

from shoal.core.plan import Buffered
from shoal.core.receipt import Receipt
from shoal.core.task import RoundPlan
from shoal.rounds.record import RoundRecord
from tests.server.conftest import START, Served, delta, report_body, spec

LATE = RoundPlan(goal=1, deadline=60.0, lease=20.0, confidence=0.95)


def post(served: Served, path: str, **asked: object) -> tuple[int, dict]:
    answer = served.client.post(path, json=asked, headers=served.people())
    return answer.status_code, answer.json()


def records(served: Served, task: str) -> list[RoundRecord]:
    answer = served.client.get(f"/v1/tasks/{task}/rounds", headers=served.people())
    assert answer.status_code == 200
    return msgspec.json.decode(answer.content, type=list[RoundRecord])


def one_round(served: Served, task: str, *devices: str) -> list[tuple[str, str]]:
    """Let devices get work and report it; wait for the version. Returns (device, assignment)."""
    before = served.versions(task, wait=0.0).versions[-1].number
    given = [(name, served.check_in(name).assignment.id) for name in devices]
    for name, assignment in given:
        assert served.report(name, assignment, report_body(delta(1.0))).status_code == 200
    assert served.versions(task, after=before).versions
    return given


def test_a_report_after_the_close_is_gone_before_its_bytes_are_read(served: Served):
    task = served.publish(spec(rounds=3, plan=LATE)).id
    late = served.check_in("late").assignment.id
    one_round(served, task, "ann")
    for _ in range(2):
        answer = served.report("late", late, b"never read")
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    first, second = records(served, task)
    assert (first.outcome, first.selected, first.reported, first.late) == ("committed", 2, 1, 1)
    assert first.update_bytes > 0
    assert (second.outcome, second.selected, second.late) == ("open", 0, 0)


def test_a_late_report_is_carried_when_the_plan_says_so(served: Served):
    task = served.publish(spec(rounds=2, plan=replace(LATE, late="carry"))).id
    late = served.check_in("late").assignment.id
    one_round(served, task, "ann")
    answer = served.report("late", late, report_body(delta(2.0)))
    assert answer.status_code == 200
    assert served.versions(task, after=1).versions[0].reports == 1
    assert records(served, task)[1].carried == 1


def test_a_repeat_gets_its_receipt_however_old_it_is(served: Served):
    task = served.publish(spec(rounds=6, goal=1)).id
    [(name, assignment)] = one_round(served, task, "ann")
    state = served.coordinator.tasks.find(task).state
    receipt = state.former[assignment]
    for _ in range(3):
        one_round(served, task, "bob")
    assert state.receipt(assignment) is None
    again = served.report(name, assignment, report_body(delta(1.0)))
    assert msgspec.json.decode(again.content, type=Receipt) == served.coordinator.key.sign(receipt)
    other = served.report(name, assignment, report_body(delta(7.0)))
    assert (other.status_code, other.json()["receipt"]["digest"]) == (409, receipt.digest)
    assert served.report("bob", assignment, report_body(delta(1.0))).status_code == 410


def test_buffered_rounds_damp_what_is_stale(served: Served):
    plan = RoundPlan(goal=2, deadline=60.0, lease=20.0, buffered=Buffered(2, 4))
    bounds = replace(spec().bounds, max_updates=2)
    task = served.publish(spec(rounds=3, plan=plan, bounds=bounds)).id
    slow = served.check_in("slow").assignment.id
    one_round(served, task, "ann", "bob")
    fast = served.check_in("ann").assignment.id
    assert served.report("slow", slow, report_body(delta(2.0))).status_code == 200
    assert served.report("ann", fast, report_body(delta(1.0))).status_code == 200
    version = served.versions(task, after=1).versions[0]
    blob = served.client.get(f"/v1/blobs/{version.digest}", headers=served.people()).content
    found = np.frombuffer(blob[-24:], np.float32)
    expected = START["w"].ravel() + 1.0 + (1.0 + 2.0 / np.sqrt(2.0)) / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_task_is_paused_resumed_and_extended(served: Served):
    task = served.publish(spec(rounds=1, goal=1)).id
    assert post(served, f"/v1/tasks/{task}/pause")[1]["phase"] == "paused"
    assert served.check_in("ann").reason == "task 'plain' is paused"
    assert post(served, f"/v1/tasks/{task}/resume")[1]["phase"] == "collecting"
    one_round(served, task, "ann")
    assert post(served, f"/v1/tasks/{task}/pause")[0] == 409
    status, told = post(served, f"/v1/tasks/{task}/extend", rounds=2)
    assert (status, told["phase"], told["round"]) == (200, "collecting", 2)
    assert post(served, f"/v1/tasks/{task}/extend", rounds=1)[0] == 409
    one_round(served, task, "ann")
    post(served, f"/v1/tasks/{task}/extend", rounds=5)
    assert post(served, f"/v1/tasks/{task}/cancel", reason="enough")[1]["phase"] == "cancelled"
    assert post(served, f"/v1/tasks/{task}/extend", rounds=9)[0] == 409


def test_only_those_who_publish_may_pause(served: Served):
    task = served.publish(spec()).id
    viewer = served.people(served.coordinator.identities.issue("viewer", served.clock()))
    assert served.client.post(f"/v1/tasks/{task}/pause", headers=viewer).status_code == 403
    assert served.client.get(f"/v1/tasks/{task}/rounds", headers=viewer).status_code == 200


def test_several_tasks_share_their_devices_fairly(served: Served):
    names = ("plain", "other", "third")
    for name in names:
        served.publish(spec(name=name, rounds=1, goal=6, bounds=replace(spec().bounds, max_updates=8)))
    served_by: dict[str, list[str]] = {}
    for device in ("ann", "bob", "carl", "dora", "emil", "fay"):
        given = served.check_in(device, training=list(names)).assignment
        served_by.setdefault(given.task, []).append(device)
        assert served.check_in(device, training=list(names)).assignment == given
    assert {task: len(devices) for task, devices in served_by.items()} == {"plain-1": 2, "other-1": 2, "third-1": 2}
    first = served_by["plain-1"][0]
    assignment = served.check_in(first, training=list(names)).assignment
    assert served.report(first, assignment.id, report_body(delta(1.0))).status_code == 200
    assert served.check_in(first, training=list(names)).assignment.task != "plain-1"
