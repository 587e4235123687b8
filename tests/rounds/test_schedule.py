"""When rounds open and when devices may come: times are numbers that each test picks."""

from dataclasses import replace
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from shoal.core.errors import TaskError
from shoal.core.plan import Buffered
from shoal.core.schedule import DAY, Schedule
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.rounds.effects import Assign, Wait
from shoal.rounds.events import CheckedIn, Committed, Published, Reported
from shoal.rounds.pace import Population, mean_delay, retry_after, spread
from shoal.rounds.schedule import check_schedule, next_opening, share, until_window
from shoal.rounds.state import TaskState
from shoal.store.events import decode_state, encode_state

HOUR = 3600.0
SPEC = TaskSpec("nightly", {"w": ArraySpec((1,), "float32")}, rounds=4, plan=RoundPlan(1), seed=7, initial="v0")


def begun(schedule: Schedule, now: float = 0.0) -> TaskState:
    return TaskState.begin(Published("t", replace(SPEC, schedule=schedule)), now)


def check_in(state: TaskState, device: str, now: float, utc_offset: float = 0.0) -> Assign | Wait:
    [effect] = state.handle(CheckedIn(device, utc_offset), now)
    assert isinstance(effect, Assign | Wait)
    return effect


def one_round(state: TaskState, device: str, now: float) -> None:
    given = check_in(state, device, now)
    assert isinstance(given, Assign), given
    state.handle(Reported(given.assignment.id, device, "u", 1, 1), now)
    state.handle(Committed(state.round, state.attempt, f"v{state.round}", ""), now)


def test_rounds_open_every_so_often_and_leave_out_what_was_missed():
    state = begun(Schedule(every=100.0), now=10.0)
    one_round(state, "ann", 15.0)
    early = check_in(state, "ann", 20.0)
    assert early == Wait("ann", "round 2 has not opened for this device", 90.0)
    one_round(state, "ann", 350.0)
    assert state.opens == 410.0
    assert isinstance(check_in(state, "ann", 410.0), Assign)


def test_cron_opens_rounds_in_utc():
    state = begun(Schedule(cron="0 3 * * *"), now=HOUR)
    assert check_in(state, "ann", HOUR) == Wait("ann", "round 1 has not opened for this device", 2 * HOUR)
    one_round(state, "ann", 3 * HOUR)
    assert state.opens == DAY + 3 * HOUR
    assert next_opening(Schedule(cron="0 3 * * 0"), 0.0, 0.0) == 3 * DAY + 3 * HOUR  # 1970 began on a Thursday


@pytest.mark.parametrize("cron", ["soon", "0 25 * * *", "0 0 30 2 *"])
def test_a_cron_expression_that_never_comes_true_is_refused(cron: str):
    with pytest.raises(TaskError, match="cron="):
        check_schedule(Schedule(cron=cron))


@pytest.mark.parametrize(
    ("now", "offset", "zone", "wait"),
    [
        (23 * HOUR, 0.0, "utc", 0.0),
        (5 * HOUR, 0.0, "utc", 0.0),
        (6 * HOUR, 0.0, "utc", 16 * HOUR),
        (6 * HOUR, -2 * HOUR, "device", 0.0),
        (6 * HOUR, -2 * HOUR, "utc", 16 * HOUR),
        (23 * HOUR, 9 * HOUR, "device", 14 * HOUR),
    ],
)
def test_a_window_may_cross_midnight_and_be_in_the_time_of_the_device(now, offset, zone, wait):
    schedule = Schedule(window="22:00-06:00", time_zone=zone)
    assert until_window(schedule, now, offset) == wait
    given = check_in(begun(schedule), "ann", now, offset)
    assert isinstance(given, Assign) if wait == 0 else given.retry_after == wait


def test_devices_have_moments_of_their_own_after_a_round_opens():
    state = begun(Schedule(every=1000.0, jitter=100.0))
    waits = {name: check_in(state, name, 0.0).retry_after for name in ("ann", "bob", "cyd")}
    assert len(set(waits.values())) == 3
    assert all(0 < wait < 100 for wait in waits.values())
    assert check_in(state, "bob", 1.0).retry_after == pytest.approx(waits["bob"] - 1.0)
    assert isinstance(check_in(state, "bob", waits["bob"] + 0.001), Assign)


def test_a_device_rests_between_two_rounds_while_another_works():
    state = begun(Schedule(period=100.0))
    one_round(state, "ann", 0.0)
    assert check_in(state, "ann", 10.0) == Wait("ann", "this device works once in 100 s", 90.0)
    restored = decode_state(encode_state(state))
    assert check_in(restored, "ann", 10.0).retry_after == 90.0
    one_round(state, "bob", 10.0)
    one_round(state, "ann", 100.0)
    assert state.served == {"bob": 10.0, "ann": 100.0}
    one_round(state, "cyd", 150.0)
    assert "bob" not in state.served


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"every": -1.0}, "every=-1"),
        ({"every": float("nan")}, "every=nan"),
        ({"every": 1.0, "cron": "* * * * *"}, "and cron="),
        ({"window": "9-17"}, "window='9-17'"),
        ({"window": "09:00-09:00"}, "window="),
        ({"time_zone": "device"}, "no time of day"),
        ({"separation": -1.0}, "separation=-1"),
        ({"jitter": 5.0}, "jitter=5"),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(wrong, named):
    with pytest.raises(TaskError, match=named):
        Schedule(**wrong)


def test_buffered_rounds_open_at_no_time():
    with pytest.raises(TaskError, match="buffered"):
        replace(SPEC, plan=RoundPlan(1, buffered=Buffered(1, 5)), schedule=Schedule(every=5.0))


def test_a_small_population_meets_when_the_round_opens():
    assert {retry_after(500.0, 10, 300.0, 50, draw) for draw in (0.0, 0.5, 0.99)} == {500.0}


def test_a_large_population_that_comes_at_once_after_an_outage_is_spread():
    active, places, seconds = 100_000, 1000, 300.0
    mean = mean_delay(active, places / seconds)
    assert mean == 30_000.0
    delays = [retry_after(5.0, places, seconds, active, share(str(device), "outage")) for device in range(10_000)]
    assert min(delays) >= spread(mean, 0.0) == 15_000.0
    assert max(delays) < spread(mean, 1.0) == 45_000.0
    by_hour = [sum(start <= d < start + 3000.0 for d in delays) for start in range(15_000, 45_000, 3000)]
    assert all(900 < number < 1100 for number in by_hour)


def test_nobody_of_a_large_population_comes_before_the_round_opens():
    delays = [retry_after(20_000.0, 1000, 300.0, 100_000, draw / 10) for draw in range(10)]
    assert min(delays) == 20_000.0
    assert max(delays) == 47_000.0


def test_devices_come_once_a_day_even_if_fewer_are_wanted():
    assert mean_delay(10**6, 1.0) == DAY
    assert mean_delay(10**6, 0.0) == DAY


def test_a_population_is_those_of_today_or_yesterday():
    population = Population.of(["ann", "bob", "cyd"], 0.0)
    population.arrived("ann", 1.0)
    assert population.active == 3
    population.arrived("ann", 2 * DAY)
    population.arrived("ann", 4 * DAY)
    assert population.active == 1


BERLIN, CLOCK = ZoneInfo("Europe/Berlin"), "%a %d %b %H:%M %Z"


def at(text: str, zone: tzinfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def test_cron_follows_summer_time_where_the_zone_has_one():
    schedule = Schedule(cron="0 3 * * *", time_zone="Europe/Berlin")
    times, now = [], at("2026-03-27T12:00")
    for _ in range(3):
        now = next_opening(schedule, now, now)
        times.append(datetime.fromtimestamp(now, BERLIN).strftime(CLOCK))
    assert times == ["Sat 28 Mar 03:00 CET", "Sun 29 Mar 03:00 CEST", "Mon 30 Mar 03:00 CEST"]
    # the night in which half past two is there twice, and the one in which it is not
    for day, found in (("2026-10-24", "Sun 25 Oct 02:30 CEST"), ("2026-03-28", "Sun 29 Mar 03:00 CEST")):
        half_past_two = Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
        opens = next_opening(half_past_two, 0.0, at(f"{day}T12:00"))
        assert datetime.fromtimestamp(opens, BERLIN).strftime(CLOCK) == found
        assert next_opening(half_past_two, opens, opens) - opens > 20 * HOUR


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        ("2026-01-15T12:00", 10.0),
        ("2026-03-28T23:00", 0.0),
        ("2026-03-29T06:00", 16.0),
        ("2026-10-24T06:30", 15.5),
        ("2026-10-25T05:59", 0.0),
    ],
)
def test_a_window_is_in_the_time_of_a_named_zone(now: str, hours: float):
    assert until_window(Schedule(window="22:00-06:00", time_zone="Europe/Berlin"), at(now), 9 * HOUR) == hours * HOUR


def test_a_window_that_opens_after_the_clock_changed_is_an_hour_nearer_or_further():
    schedule = Schedule(window="12:00-13:00", time_zone="Europe/Berlin")
    assert until_window(schedule, at("2026-03-28T20:00"), 0.0) == 15 * HOUR
    assert until_window(schedule, at("2026-10-24T20:00"), 0.0) == 17 * HOUR
    # in a window that begins in the missing hour, work begins when the clock jumps over it
    night = Schedule(window="02:30-05:00", time_zone="Europe/Berlin")
    assert until_window(night, at("2026-03-29T01:00"), 0.0) <= 1.5 * HOUR
    assert until_window(night, at("2026-03-29T03:10"), 0.0) == 0.0


def test_cron_in_the_time_of_the_device_opens_for_each_at_its_own_hour():
    state = begun(Schedule(cron="0 3 * * *", time_zone="device"), now=0.0)
    assert check_in(state, "tokyo", 0.0, 9 * HOUR).assignment  # three at night was long ago there
    state = begun(Schedule(cron="0 3 * * *", time_zone="device"), now=4 * HOUR)
    waits = {name: check_in(state, name, 4 * HOUR, offset * HOUR) for name, offset in (("tokyo", 9), ("lima", -5))}
    assert {name: wait.retry_after / HOUR for name, wait in waits.items()} == {"tokyo": 14.0, "lima": 28.0}
    given = check_in(state, "tokyo", 18 * HOUR, 9 * HOUR)
    assert isinstance(given, Assign)
    again = check_in(state, "tokyo", 18 * HOUR + 1.0, 9 * HOUR)
    assert again == given
    state.handle(Reported(given.assignment.id, "tokyo", "u", 1, 1), 18 * HOUR + 2.0)
    state.handle(Committed(1, 1, "v1", ""), 18 * HOUR + 3.0)
    assert check_in(state, "tokyo", 19 * HOUR, 9 * HOUR).retry_after == 23 * HOUR


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "../etc/passwd", "", "/etc/localtime"])
def test_a_zone_that_there_is_not_is_refused(zone: str):
    with pytest.raises(TaskError, match="time zone"):
        check_schedule(Schedule(window="22:00-06:00", time_zone=zone))


def test_a_device_rests_after_its_work_for_another_task():
    state = begun(Schedule(separation=HOUR))
    [told] = state.handle(CheckedIn("ann", 0.0, 600.0), 1200.0)
    assert told == Wait("ann", "this device worked for another task less than 3600 s ago", 3000.0)
    [given] = state.handle(CheckedIn("ann", 0.0, 600.0), 4200.0)
    assert isinstance(given, Assign)
    [free] = begun(Schedule(separation=HOUR)).handle(CheckedIn("ann"), 1.0)
    assert isinstance(free, Assign)
