"""Owners that die in mid-round, and rounds that too few owners reach. The coordinator's time is moved by hand."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from shoal.core.errors import Abandoned
from shoal.core.tree import digest
from shoal.researcher.run import Run
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.clock import ManualClock
from tests.agent.federation import Faulty, Federation, Running, line_task

# models this small lose time to a second thread
torch.set_num_threads(1)

DEADLINE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def federation(tmp_path: Path, clock: ManualClock) -> Iterator[Federation]:
    made = Federation(tmp_path, MemoryStore(), MemoryBlobs(), clock)
    yield made
    made.close()


def publish(federation: Federation, rounds: int, minimum: int, attempts: int = 3) -> Run:
    return federation.researcher.publish(
        line_task(),
        rounds=rounds,
        goal=2,
        minimum=minimum,
        deadline=DEADLINE,
        lease=DEADLINE,
        attempts=attempts,
        plan=False,
    )


def dies(federation: Federation, name: str, *, after: bool = False) -> None:
    """Let an owner join, train, make its report durable, and die before its first byte is sent."""
    fault = Faulty(federation.transport, "/report", [KeyboardInterrupt()], after=after)
    with pytest.raises(KeyboardInterrupt):
        Running(federation.agent(name, transport=fault)).join()
    federation.restart_home(name)


def hold(run: Run) -> None:
    """Let the coordinator hold a call for a moment."""
    with suppress(Abandoned):
        next(run.follow(within=0.02))


def until_reports(federation: Federation, run: Run, reports: int) -> None:
    for _ in range(500):
        if federation.researcher.status(run.id).reports == reports:
            return
        hold(run)
    pytest.fail(f"no {reports} reports came")


@pytest.mark.slow
def test_a_round_closes_at_its_deadline_without_the_dead_and_takes_them_back_in_the_next(
    federation: Federation, clock: ManualClock
):
    run = publish(federation, rounds=2, minimum=1)
    dies(federation, "alice")
    (old,) = federation.home("alice").reports()
    federation.start("bob")
    until_reports(federation, run, 1)
    assert federation.researcher.status(run.id).latest.number == 0  # it waits for alice, until the deadline
    clock.advance(DEADLINE + 1)
    versions = run.follow()
    assert next(versions).reports == 1

    federation.start("alice")
    assert next(versions).reports == 2
    assert f"assignment {old}" in federation.said.until("a report was not needed")
    assert federation.home("alice").reports() == []
    kinds = [(line.kind, line.task) for line in federation.home("alice").releases()]
    assert kinds == [("update", run.id), ("refused", old), ("update", run.id)]
    late = list(federation.home("alice").releases())[1]
    assert late.reason.startswith("not needed: assignment")


def test_an_owner_that_died_after_its_report_arrived_is_not_asked_again(federation: Federation):
    run = publish(federation, rounds=1, minimum=2)
    dies(federation, "alice", after=True)
    federation.start("alice")
    federation.start("bob")
    assert [version.reports for version in run.follow()] == [2]
    assert [line.kind for line in federation.home("alice").releases()] == ["update"]


@pytest.mark.slow
def test_too_few_are_abandoned_tried_again_and_end_with_the_reason(federation: Federation, clock: ManualClock):
    run = publish(federation, rounds=2, minimum=2, attempts=2)
    federation.start("bob")
    for attempt in (1, 2):
        until_attempt(federation, run, attempt)
        until_reports(federation, run, 1)
        clock.advance(DEADLINE + 1)
    with pytest.raises(Abandoned, match=r"line-1 failed: round 1 got 1 of at least 2 reports in 60 s"):
        list(run.follow())
    status = federation.researcher.status(run.id)
    assert (status.phase, status.latest.number, status.latest.digest) == ("failed", 0, run.spec.initial)
    assert digest({name: array for name, array in run.params().items() if name != "scale"}) == run.spec.initial


@pytest.mark.slow
def test_a_round_that_was_abandoned_succeeds_when_the_owners_are_there(federation: Federation, clock: ManualClock):
    run = publish(federation, rounds=1, minimum=2, attempts=2)
    federation.start("bob")
    until_reports(federation, run, 1)
    clock.advance(DEADLINE + 1)
    until_attempt(federation, run, 2)
    federation.start("alice")
    assert [version.reports for version in run.follow()] == [2]
    assert [line.round for line in federation.home("bob").releases()] == [1, 1]


def until_attempt(federation: Federation, run: Run, attempt: int) -> None:
    """Ask until the coordinator's sweep, which looks at the time once a second, has seen the deadline."""
    for _ in range(500):
        if federation.researcher.status(run.id).attempt == attempt:
            return
        hold(run)
    pytest.fail(f"no attempt {attempt}")
