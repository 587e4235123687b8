"""Clocks that are wrong: the coordinator's own may jump, everybody else's does not matter."""

from dataclasses import replace

import pytest

from shoal.core.types import Assignment
from shoal.rounds.events import CheckedIn, Published, Recorded, Ticked
from shoal.rounds.replay import replay
from shoal.rounds.state import TaskState
from tests.server.conftest import Served, delta, report_body, spec

HOUR = 3600.0


def begun(served: Served, minimum: int) -> tuple[str, Assignment]:
    task = served.publish(spec(goal=2, plan=replace(spec().plan, goal=2, minimum=minimum)))
    given = served.check_in("bob").assignment
    assert given is not None
    assert served.check_in("alice").assignment is not None
    assert served.report("bob", given.id, report_body(delta(1.0))).status_code == 200
    return task.id, given


def jump(served: Served, seconds: float) -> None:
    served.clock.advance(seconds)
    served.coordinator.bell.ring()


def test_a_clock_set_forward_closes_a_round_that_has_its_minimum(served: Served) -> None:
    task, _ = begun(served, minimum=1)
    jump(served, HOUR)
    [version] = served.versions(task, after=0).versions
    assert version.reports == 1


def test_a_clock_set_forward_begins_a_round_again_that_has_not(served: Served) -> None:
    task, _ = begun(served, minimum=2)
    jump(served, HOUR)
    served.versions(task, after=0, wait=0.05)
    again = served.check_in("bob").assignment
    assert again is not None
    assert (again.round, again.attempt) == (1, 2)
    other = served.check_in("alice").assignment
    assert other is not None
    for name, given in (("bob", again), ("alice", other)):
        assert served.report(name, given.id, report_body(delta(1.0))).status_code == 200
    [version] = served.versions(task, after=0).versions
    assert version.reports == 2


def test_a_clock_set_back_does_not_hold_a_round_open(served: Served) -> None:
    task, given = begun(served, minimum=1)
    jump(served, -HOUR)
    served.versions(task, after=0, wait=0.05)
    receipt = served.report("bob", given.id, report_body(delta(1.0)))
    assert receipt.status_code == 200  # the one from before
    jump(served, 61.0)  # the round's own deadline, not an hour more
    [version] = served.versions(task, after=0).versions
    assert version.reports == 1


@pytest.mark.parametrize("back", [HOUR, 1e6])
def test_a_round_on_a_clock_that_was_set_back_is_due_within_its_deadline(back: float) -> None:
    made = spec(goal=2)
    records = [Recorded(1e6, Published("plain-1", made))]
    state = TaskState.begin(records[0].event, 1e6)  # type: ignore[arg-type]
    for at, event in ((1e6, CheckedIn("bob")), (1e6 + 5 - back, Ticked())):
        assert isinstance(event, CheckedIn) or state.due(at)
        state.handle(event, at)
        records.append(Recorded(at, event))
    timer = state.next_timer()
    assert timer is not None
    assert 1e6 + 5 - back <= timer <= 1e6 + 5 - back + made.plan.deadline
    assert not state.due(1e6 + 5 - back)
    assert replay(records) == state
