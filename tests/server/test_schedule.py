"""A schedule and the pace of a population over HTTP."""

import msgspec

from shoal.core.schedule import DAY, Schedule
from shoal.rounds.pace import SMALL, Population
from tests.server.conftest import Served, spec

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
