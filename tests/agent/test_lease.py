import threading

import pytest

from shoal.agent.lease import Lease, Stopped
from shoal.core.errors import Gone
from shoal.testing.clock import ManualClock
from shoal.wire.http import Connection
from shoal.wire.messages import CheckInReply, CheckInRequest
from tests.agent.federation import URL, Federation, line_task


@pytest.fixture
def work(federation: Federation):
    """A lease of 120 s on round 1 of a task, its clock, and the coordinator's view of when it ends."""
    run = federation.researcher.publish(line_task(), rounds=1, goal=1, plan=False)
    agent = federation.agent("bob")
    agent._enrol()
    connection = Connection(URL, key=agent._identity.key, transport=federation.transport)
    reply = connection.call("POST", "/v1/checkin", CheckInRequest(("line",)), CheckInReply)
    clock = ManualClock()
    lease = Lease(connection, clock)
    lease.begin(reply.assignment, reply.lease, threading.Event())
    state = federation.coordinator.tasks[run.id].state
    return lease, clock, run, lambda: state.leases["bob"].expires


def test_progress_renews_the_lease_once_half_of_it_has_passed(work):
    lease, clock, _, expires = work
    first = expires()
    clock.advance(59.0)
    lease.progress()
    assert expires() == first
    clock.advance(2.0)
    lease.progress()
    renewed = expires()
    assert renewed > first
    lease.progress()
    assert expires() == renewed


def test_a_round_that_is_over_ends_the_work(work, federation: Federation):
    lease, clock, run, _ = work
    federation.researcher.cancel(run.id)
    clock.advance(61.0)
    with pytest.raises(Gone):
        lease.progress()


def test_a_coordinator_that_is_away_does_not_end_the_work(work, federation: Federation):
    lease, clock, _, _ = work
    federation.transport.close()
    clock.advance(61.0)
    lease.progress()


def test_a_stop_ends_the_work(federation: Federation, work):
    lease, _, _, _ = work
    lease._stop.set()
    with pytest.raises(Stopped):
        lease.progress()
