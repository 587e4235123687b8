import threading
from collections.abc import Callable

import httpx
import pytest
import torch
from torch import nn

from shoal.agent.policy import Policy
from shoal.core.errors import Conflict, Unauthorised
from shoal.core.task import Bounds
from shoal.researcher.run import Run
from shoal.train.task import Task
from tests.agent.federation import Faulty, Federation, line_data, line_task


def publish(federation: Federation, rounds: int = 2, goal: int = 1, **changes: object) -> Run:
    return federation.researcher.publish(
        line_task(**changes), rounds=rounds, goal=goal, deadline=60.0, seed=7, plan=False
    )


def digests(run: Run) -> list[str]:
    return [version.digest for version in run.follow()]


def test_two_agents_train_to_the_end_and_log_what_they_released(federation: Federation):
    run = publish(federation, rounds=3, goal=2)
    for name in ("bob", "alice"):
        federation.start(name)
    versions = list(run.follow())
    assert [version.number for version in versions] == [1, 2, 3]
    assert [version.reports for version in versions] == [2, 2, 2]
    assert versions[2].metrics["loss"] < versions[0].metrics["loss"]
    releases = list(federation.home("bob").releases())
    assert [(release.kind, release.task, release.round) for release in releases] == [
        ("update", "line-1", number) for number in (1, 2, 3)
    ]
    assert "layers.0.weight float32 [4, 3]" in releases[0].what
    assert not any("scale" in what for what in releases[0].what)  # frozen arrays never travel
    assert releases[0].norm > 0


def test_it_says_what_it_releases_before_the_first_byte_leaves(federation: Federation):
    publish(federation)
    seen: list[str] = []
    lost = Faulty(federation.transport, "/report", [KeyboardInterrupt()], after=False)
    running = federation.start("bob", transport=lost, say=seen.append)
    with pytest.raises(KeyboardInterrupt):
        running.join()
    assert seen[-1].startswith("releasing to line-1 round 1: change of 4 arrays, length ")
    assert [release.kind for release in federation.home("bob").releases()] == ["update"]


@pytest.mark.slow
def test_an_update_whose_receipt_was_lost_counts_once(federation: Federation):
    lost = Faulty(federation.transport, "/report", [httpx.ReadError("cut") for _ in range(2)], after=True)
    run = publish(federation, rounds=2)
    federation.start("bob", transport=lost)
    assert [version.reports for version in run.follow()] == [1, 1]
    assert len(federation.reported(run.id)) == 2
    assert sum("got no answer" in line for line in federation.said.lines) == 2
    assert [release.round for release in federation.home("bob").releases()] == [1, 2]


def test_an_update_that_was_durable_when_the_agent_died_is_sent_at_the_next_start(federation: Federation):
    run = publish(federation, rounds=1)
    lost = Faulty(federation.transport, "/report", [KeyboardInterrupt()], after=False)
    running = federation.start("bob", transport=lost)
    with pytest.raises(KeyboardInterrupt):
        running.join()
    (waiting,) = federation.home("bob").reports()
    with federation.home("bob").report(waiting).open() as file:
        body = file.read(1 << 20)

    federation.restart_home("bob")
    again = federation.start("bob", code=None)  # without code it cannot have trained again
    assert len(digests(run)) == 1
    again.end()
    (accepted,) = federation.reported(run.id)
    assert accepted.digest.encode() in body
    assert federation.home("bob").reports() == []


def disturbed(at: int, disturb: Callable[[], object]) -> Callable[[], Task]:
    """The owner's code, with a disturbance in the loss of one step; step 1 is the golden one."""
    steps = iter(range(1, 1000))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if next(steps) == at:
            disturb()
        return nn.functional.mse_loss(output, target)

    return lambda: line_task(loss=loss)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_agent_that_died_while_training_gets_the_same_work_again(federation: Federation):
    run = publish(federation, rounds=1)
    with pytest.raises(KeyboardInterrupt):
        federation.agent("bob", code=disturbed(3, interrupt)).run(threading.Event())
    assert list(federation.home("bob").releases()) == []
    federation.restart_home("bob")
    federation.start("bob")
    assert len(digests(run)) == 1


def test_too_few_rows_are_refused_with_the_reason_and_another_owner_takes_the_place(federation: Federation):
    run = publish(federation, rounds=1)
    poor = federation.start("bob", line_data("bob", rows=9))
    refused = federation.said.until("refused round 1")
    assert "an update for task 'line' about 9 rows: this owner's policy asks for at least 10" in refused
    poor.end()
    (line,) = federation.home("bob").releases()
    assert (line.kind, line.task, line.round) == ("refused", "line-1", 1)
    assert "at least 10" in line.reason
    federation.start("alice")
    assert len(digests(run)) == 1


def test_a_policy_without_training_never_loads_the_code(federation: Federation):
    publish(federation)
    running = federation.start("bob", code=interrupt, policy=Policy(training=False))
    federation.said.until("enrolled as 'bob'")
    running.end()


def test_other_code_is_refused_though_names_and_shapes_are_the_same(federation: Federation):
    publish(federation)
    federation.start("bob", code=lambda: line_task(nn.Tanh()))
    assert "one training step gives another result" in federation.said.until("refused round 1")
    assert [release.kind for release in federation.home("bob").releases()] == ["refused"]


def test_an_update_that_the_coordinator_refuses_is_logged_and_not_sent_again(federation: Federation):
    run = publish(federation, bounds=Bounds(max_abs=2.0**-20))
    bob = federation.start("bob")
    assert "the task takes values up to" in federation.said.until("a report was refused")
    federation.researcher.cancel(run.id, "enough seen")
    bob.end()
    kinds = [release.kind for release in federation.home("bob").releases()]
    assert kinds == ["update", "refused"]
    assert federation.home("bob").reports() == []


def test_a_lost_reply_to_the_enrolment_is_asked_for_again(federation: Federation):
    run = publish(federation, rounds=1)
    lost = Faulty(federation.transport, "/v1/devices", [httpx.ReadError("cut")], after=True)
    federation.start("bob", transport=lost)
    assert len(digests(run)) == 1
    assert [device.name for device in federation.researcher.devices()] == ["bob"]


@pytest.mark.slow
def test_a_coordinator_that_is_away_is_asked_again(federation: Federation):
    run = publish(federation, rounds=1)
    away = Faulty(federation.transport, "", [httpx.ConnectError("refused") for _ in range(2)], after=False)
    federation.start("bob", transport=away)
    assert len(digests(run)) == 1
    assert sum("check that the coordinator runs" in line for line in federation.said.lines) == 2


def test_a_name_that_another_key_holds_is_told_to_the_user(federation: Federation):
    federation.start("bob")
    federation.said.until("enrolled as 'bob'")
    other = federation.agent("bob", home="elsewhere")
    with pytest.raises(Conflict, match="belongs to another device"):
        other.run(threading.Event())


def test_a_wrong_token_and_none_are_told_to_the_user(federation: Federation):
    with pytest.raises(Unauthorised):
        federation.agent("bob", token="wrong").run(threading.Event())
    with pytest.raises(Unauthorised, match="'alice' gave no enrolment token"):
        federation.agent("alice", token=None).run(threading.Event())


def test_it_stops_between_batches(federation: Federation):
    run = publish(federation, rounds=1)
    stop = threading.Event()
    federation.agent("busy", code=disturbed(3, stop.set)).run(stop)
    assert stop.is_set()
    assert federation.researcher.status(run.id).reports == 0


def test_it_stops_between_calls(federation: Federation):
    running = federation.start("idle", code=None)
    federation.said.until("enrolled as 'idle'")
    running.end()
