"""Versions over HTTP: heads, canaries with the evaluations that guard them, and restarts in between."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import msgspec
import numpy as np

from shoal.algorithms import evaluation
from shoal.core.serving import Canary, Serving
from shoal.core.task import Component, weight_units
from shoal.rounds.events import RolledBack
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.retention import used
from shoal.testing.transport import InMemoryTransport
from shoal.wire.codec import encode_trees, frame
from shoal.wire.messages import HeadsReply, LatestReply, ReportHead, VersionRecord
from tests.server.conftest import Served, Signing, delta, report_body, spec

CANARY = Canary(0.5, tolerance=0.1, devices=2, minimum_rows=20, deadline=1000.0)
CAUTIOUS = Serving("canary", CANARY)


def post(served: Served, path: str, **asked: object) -> tuple[int, dict]:
    answer = served.client.post(path, json=asked, headers=served.people())
    return answer.status_code, answer.json()


def heads(served: Served, task: str) -> HeadsReply:
    answer = served.client.get(f"/v1/tasks/{task}/heads", headers=served.people())
    return msgspec.json.decode(answer.content, type=HeadsReply)


def latest(served: Served, task: str, device: str) -> LatestReply:
    answer = served.client.get(f"/v1/tasks/{task}/latest", headers=served.device(device))
    return msgspec.json.decode(answer.content, type=LatestReply)


def settled(served: Served, task: str, *steps: str) -> HeadsReply:
    """Wait until these were the last steps; every look rings the bell that the sweeper waits for."""
    for _ in range(200):
        served.coordinator.bell.ring()
        found = heads(served, task)
        if tuple(step.what for step in found.steps[-len(steps) :]) == steps:
            return found
    raise AssertionError(found)


def one_round(served: Served, task: str, device: str = "ann", value: float = 1.0) -> None:
    before = served.versions(task, wait=0.0).versions[-1].number
    given = served.check_in(device).assignment
    assert served.report(device, given.id, report_body(delta(value))).status_code == 200
    assert served.versions(task, after=before).versions


def cohort(served: Served, task: str, number: int, holds: bool = True) -> list[str]:
    members = replace(served.coordinator.tasks.find(task).state.heads.candidate).cohort(task)
    assert served.coordinator.tasks.find(task).state.heads.candidate.number == number
    return [name for name in (f"device-{n}" for n in range(20)) if members.holds(name) == holds]


def measured(served: Served, device: str, candidate: float, head: float, rows: int = 15) -> None:
    given = served.check_in(device, training=["plain"], evaluation=True, statistics=False).assignment
    while "-guard-" not in given.task:  # the training round comes first: give it back
        served.client.post(
            f"/v1/assignments/{given.id}/release", json={"reason": "busy"}, headers=served.device(device)
        )
        given = served.check_in(device, training=["plain"], evaluation=True, statistics=False).assignment
    data = encode_trees({"delta": evaluation.measure([candidate, head], rows)})
    made = ReportHead(hashlib.sha256(data).hexdigest(), len(data), weight_units(rows))
    assert served.report(device, given.id, frame(made, data)).status_code == 200


def tried(served: Served) -> str:
    task = served.publish(spec(rounds=9, goal=1, serving=CAUTIOUS)).id
    one_round(served, task)
    settled(served, task, "canary", "guard")
    return task


def test_a_good_candidate_is_promoted_after_its_cohort_measured_it(served: Served):
    task = tried(served)
    trying, others = cohort(served, task, 1)[:2], cohort(served, task, 1, holds=False)[:2]
    assert [latest(served, task, name).version.number for name in (*trying, *others)] == [1, 1, 0, 0]
    assert {latest(served, task, name).training.number for name in (*trying, *others)} == {1}
    for name in others:
        given = served.check_in(name, evaluation=True, training=["plain"])
        assert given.assignment is None or given.assignment.task == task
        [told] = given.versions
        assert (told.task, told.serves, told.trains) == (task, 0, 1)
        assert told.serves_digest == latest(served, task, name).version.digest
    for name, value in zip(trying, (0.5, 1.5), strict=True):
        measured(served, name, value, 1.0)
    found = settled(served, task, "measured", "promoted")
    assert (found.serving, found.candidate) == (1, None)
    assert found.steps[-1].reason == "loss 1, served 1, over 30 rows"
    assert latest(served, task, others[0]).version.number == 1
    events = [type(record.event).__name__ for _, record in served.coordinator.storage.store.events(task)]
    about = [name for name in events if name in ("CanaryBegan", "GuardPublished", "Guarded", "Promoted")]
    assert about == ["CanaryBegan", "GuardPublished", "Guarded", "Promoted"]


def test_a_worse_candidate_is_rolled_back_and_comes_back_by_a_person_only(served: Served):
    task = tried(served)
    for name in cohort(served, task, 1)[:2]:
        measured(served, name, 2.0, 1.0)
    found = settled(served, task, "measured", "rolled back")
    assert (found.serving, found.training) == (0, 1)
    records = served.client.get(f"/v1/tasks/{task}/models", headers=served.people()).content
    assert [r.standing for r in msgspec.json.decode(records, type=list[VersionRecord])] == ["served", "rolled back"]
    status, reply = post(served, f"/v1/tasks/{task}/promote", number=1, reason="the guard's rows are old")
    assert (status, reply["serving"]) == (200, 1)


def test_a_canary_that_nobody_measures_ends_with_its_evaluation(served: Served):
    task = tried(served)
    guard = served.coordinator.tasks.find(task).state.heads.candidate.guard
    served.clock.advance(CANARY.deadline)
    assert settled(served, task, "rolled back").steps[-1].reason == "not measured within 1000 s"
    assert served.coordinator.tasks.find(guard).state.phase == "cancelled"


def test_an_evaluation_that_was_left_open_when_its_canary_ended_is_ended(served: Served):
    task = tried(served)
    running = served.coordinator.tasks.find(task)
    guard = served.coordinator.tasks.find(running.state.heads.candidate.guard)
    # all that is durable when a coordinator is killed right after the verdict
    served.client._transport._on_loop(running.handle(RolledBack(1, 0, "ann", "no")))
    for _ in range(200):
        served.coordinator.bell.ring()
        heads(served, task)
        if guard.state.phase.over:
            break
    assert (guard.state.phase, guard.state.reason) == ("cancelled", "its canary is over")


def test_devices_that_cannot_use_a_candidate_end_its_canary(served: Served):
    task = tried(served)
    digest = served.coordinator.tasks.find(task).state.latest.digest
    for name, status in ((cohort(served, task, 1)[0], 200), ("ann", 200)):
        told = {"version": digest, "reason": "it predicts NaN"}
        answer = served.client.post(f"/v1/tasks/{task}/unfit", json=told, headers=served.device(name))
        assert answer.status_code == status
    assert "it predicts NaN" in settled(served, task, "rolled back").steps[-1].reason
    told = {"version": "0" * 64, "reason": "what?"}
    assert served.client.post(f"/v1/tasks/{task}/unfit", json=told, headers=served.device("ann")).status_code == 404
    assert served.client.post(f"/v1/tasks/{task}/unfit", json=told, headers=served.people()).status_code == 403


@contextmanager
def restarted(served: Served) -> Iterator[Served]:
    """The same home under a new process, as if the former one was killed."""
    again = Coordinator(served.coordinator.storage.store, served.coordinator.storage.blobs, served.clock)
    with httpx.Client(
        transport=InMemoryTransport(build_app(again)), base_url="http://shoal", auth=Signing(again)
    ) as client:
        yield replace(served, client=client, coordinator=again)


def test_heads_canary_and_roll_back_survive_a_restart(served: Served):
    task = tried(served)
    with restarted(served) as second:
        settled(second, task, "canary", "guard")
        assert len([name for name in second.coordinator.tasks if "-guard-" in name]) == 1
        for name in cohort(second, task, 1)[:2]:
            measured(second, name, 1.0, 1.0)
        settled(second, task, "measured", "promoted")
        status, reply = post(second, f"/v1/tasks/{task}/rollback", reason="worse at night")
        assert (status, reply["serving"], reply["held"]) == (200, 0, True)
        with restarted(second) as third:
            found = heads(third, task)
            assert (found.serving, found.held, found.steps[-1].reason) == (0, True, "worse at night")
            one_round(third, task)
            assert heads(third, task).candidate is None


def test_a_guard_that_was_published_before_a_crash_is_found_again(served: Served):
    task = tried(served)
    state = served.coordinator.tasks.find(task).state
    guard, state.heads.candidate.guard = state.heads.candidate.guard, ""
    assert settled(served, task, "guard", "guard").steps[-1].reason == guard


def test_people_promote_roll_back_and_write_notes(served: Served):
    task = served.publish(spec(rounds=9, goal=1)).id
    for _ in range(3):
        one_round(served, task)
    assert latest(served, task, "ann").version.number == 3
    assert post(served, f"/v1/tasks/{task}/promote", number=1)[1]["serving"] == 1
    assert post(served, f"/v1/tasks/{task}/rollback")[1]["serving"] == 3
    assert post(served, f"/v1/tasks/{task}/rollback", to=2)[1]["serving"] == 2
    refused = [
        post(served, f"/v1/tasks/{task}/rollback", to=2),
        post(served, f"/v1/tasks/{task}/rollback", to=3),
        post(served, f"/v1/tasks/{task}/promote", number=9),
        post(served, f"/v1/tasks/{task}/promote", number=2, canary=msgspec.to_builtins(CANARY)),
        post(served, f"/v1/tasks/{task}/models/9/notes", text="no"),
        post(served, f"/v1/tasks/{task}/models/2/notes", text=""),
    ]
    assert [status for status, _ in refused] == [409, 409, 404, 409, 404, 400], refused
    status, record = post(served, f"/v1/tasks/{task}/models/2/notes", text="before the new sensors")
    assert (status, record["parent"], record["round"], record["standing"]) == (200, 1, 2, "served")
    assert [note["text"] for note in record["notes"]] == ["before the new sensors"]
    for path in ("promote", "rollback", "models/1/notes"):
        answer = served.client.post(f"/v1/tasks/{task}/{path}", json={}, headers=served.device("ann"))
        assert answer.status_code == 403


def test_what_is_served_is_kept_when_old_versions_go(served: Served):
    task = served.publish(spec(rounds=9, goal=1)).id
    for value in (1.0, 2.0, 3.0):
        one_round(served, task, value=value)
    post(served, f"/v1/tasks/{task}/promote", number=1)
    state = served.coordinator.tasks.find(task).state
    assert state.versions[1].digest in used(state)
    assert np.unique([version.digest for version in state.versions]).size == 4


def test_rounds_go_back_to_an_older_version_with_its_optimizer(served: Served):
    made = spec(rounds=9, goal=1, server=Component("momentum", {"beta": 0.5}))
    task = served.publish(made).id
    for value in (1.0, 2.0, 3.0):
        one_round(served, task, value=value)
    late = served.check_in("ann").assignment.id
    status, reply = post(served, f"/v1/tasks/{task}/rewind", number=1, reason="the loss went up")
    assert (status, reply["training"], reply["serving"]) == (200, 1, 3)
    assert served.report("ann", late, report_body(delta(1.0))).status_code == 410
    state = served.coordinator.tasks.find(task).state
    assert {state.versions[1].digest, state.versions[1].checkpoint} <= used(state)
    one_round(served, task, value=2.0)  # as the second one, from the same version: the same bits
    assert (state.versions[4].parent, state.versions[4].digest) == (state.versions[1].digest, state.versions[2].digest)
    assert post(served, f"/v1/tasks/{task}/rewind", number=9)[0] == 404
    post(served, f"/v1/tasks/{task}/cancel")
    assert post(served, f"/v1/tasks/{task}/rewind", number=1)[0] == 409
