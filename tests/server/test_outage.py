"""A coordinator that was away for days: its devices come back all at once, and then evenly."""

import asyncio
from collections import Counter
from itertools import islice

from shoal.core.schedule import DAY
from shoal.core.task import RoundPlan
from shoal.rounds.pace import lately, mean_delay
from shoal.server.coordinator import Coordinator
from shoal.store.store import DeviceRecord
from shoal.testing.clock import ManualClock
from shoal.wire.messages import CheckInRequest
from tests.server.conftest import Served, served, spec

__all__ = ["served"]

DEVICES, GONE, GOAL = 3000, 500, 10
ASKING = CheckInRequest(training=("plain",))


def test_those_who_went_before_the_last_day_are_not_counted():
    assert lately({}) == []
    assert lately({"ann": 0.0, "bob": 2 * DAY, "cyd": 3 * DAY}) == ["bob", "cyd"]


async def calls(coordinator: Coordinator, clock: ManualClock, due: dict[str, float], until: float) -> dict[str, float]:
    """Let every device that is due check in at its time; return when each comes next."""
    later = dict(due)
    for name, at in sorted(due.items(), key=lambda item: item[1]):
        if at >= until:
            continue
        clock.advance(max(0.0, at - clock()))
        reply, _ = await coordinator.devices.check_in(coordinator.identities.devices[name], ASKING, lambda: None)
        later[name] = clock() + (DAY if reply.assignment else reply.retry_after)
    return later


def test_a_herd_is_spread_over_the_time_in_which_as_many_come_as_are_wanted(served: Served):
    store, clock = served.coordinator.storage.store, served.clock
    served.publish(spec(rounds=9, plan=RoundPlan(GOAL, GOAL, deadline=120.0)))
    for number in range(DEVICES + GONE):
        store.enrol(DeviceRecord(f"id {number}", f"device {number}", f"key {number}", clock()), None)
    store.saw({f"device {number}": clock() + DAY * number / DEVICES for number in range(DEVICES)})
    store.saw({f"device {number}": clock() - 30 * DAY for number in range(DEVICES, DEVICES + GONE)})
    clock.advance(4 * DAY)
    again = Coordinator(store, served.coordinator.storage.blobs, clock)
    assert again.devices.population.active == DEVICES

    async def live() -> tuple[dict[str, float], dict[str, float], float]:
        await again.start()
        herd = {f"device {number}": clock() + number / DEVICES for number in range(DEVICES)}
        back = clock()
        second = await calls(again, clock, herd, back + 2.0)
        at_work = [name for name, lease in again.tasks["plain-1"].state.leases.items()]
        mean = mean_delay(DEVICES, again.tasks["plain-1"].state.record.places / 60.0)
        # those of the herd that come next: again they are told a time of their own
        third = await calls(again, clock, dict(islice(sorted(second.items(), key=lambda i: i[1]), 300)), back + 2 * DAY)
        await again.stop()
        assert len(at_work) >= GOAL
        return {n: at - back for n, at in second.items() if n not in at_work}, third, mean

    second, third, mean = asyncio.run(live())
    assert mean / 2 <= min(second.values()) <= max(second.values()) <= 1.5 * mean + 1.0
    tenths = Counter(int((at - mean / 2) / mean * 10) for at in second.values())
    share = len(second) / 10
    assert all(0.7 * share < tenths[tenth] < 1.3 * share for tenth in range(10))
    # of 3,000 in one second at most a few are left in any one
    assert max(Counter(int(at) for at in second.values()).values()) <= 12
    assert len({round(at, 3) for at in third.values()}) > 290
