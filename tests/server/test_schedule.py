"""A schedule and the pace of a population over HTTP."""

from dataclasses import replace

import httpx
import msgspec

from shoal.core.schedule import DAY, Schedule
from shoal.rounds.pace import SMALL, Population
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.testing.transport import InMemoryTransport
from tests.server.conftest import Served, Signing, delta, report_body, spec

NOON = 12 * 3600.0


def test_a_device_is_told_when_its_own_night_begins(served: Served):
    served.publish(spec(goal=1, schedule=Schedule(window="22:00-06:00", time_zone="device")))
    offset = 23 * 3600.0 - served.clock() % DAY  # where it is eleven at night now
    assert served.check_in("noon", utc_offset=offset - NOON + 3600.0).retry_after == 10 * 3600.0
    assert served.check_in("night", utc_offset=offset).assignment is not None


def test_few_devices_meet_and_many_are_spread(served: Served):
    served.publish(spec(goal=1))
    assert served.check_in("ann").assignment is not None
    assert served.check_in("bob").retry_after == 5.0
    many = (f"device {number}" for number in range(2 * SMALL))
    served.coordinator.devices.population = Population.of(many, served.clock())
    told = {served.check_in(name).retry_after for name in ("bob", "cyd", "dan")}
    # 2,000 devices of which one is wanted in 30 seconds
    assert len(told) == 3
    assert all(30_000.0 <= seconds < 90_000.0 for seconds in told)


def test_a_cron_expression_that_is_none_is_refused_when_it_is_published(served: Served):
    wrong = msgspec.json.encode(spec(schedule=Schedule(cron="every night")))
    answer = served.client.post("/v1/tasks", content=wrong, headers=served.people())
    assert answer.status_code == 422
    assert "cron='every night'" in answer.text


def test_a_device_is_not_asked_by_a_task_that_leaves_time_after_another_also_after_a_restart(served: Served):
    served.publish(spec(goal=9))
    served.publish(spec(goal=9, name="other", schedule=Schedule(separation=10.0)))
    both = {"training": ["plain", "other"]}
    given = served.check_in("ann", training=["plain"]).assignment
    assert served.report("ann", given.id, report_body(delta(1.0))).status_code == 200
    served.clock.advance(2.0)
    assert served.check_in("bob", training=["other"]).assignment.task == "other-1"
    assert served.check_in("ann", **both).assignment is None
    again = Coordinator(served.coordinator.storage.store, served.coordinator.storage.blobs, served.clock)
    with httpx.Client(
        transport=InMemoryTransport(build_app(again)), base_url="http://shoal", auth=Signing(again)
    ) as client:
        second = replace(served, client=client, coordinator=again)
        told = second.check_in("ann", training=["other"])
        assert (told.assignment, told.retry_after) == (None, 8.0)
        served.clock.advance(8.0)
        assert second.check_in("ann", training=["other"]).assignment.task == "other-1"
