"""When rounds open and when devices may come: times are numbers that each test picks."""

from dataclasses import replace

import pytest

from shoal.core.errors import TaskError
from shoal.core.plan import Buffered
from shoal.core.schedule import DAY, Schedule
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.rounds.effects import Assign, Wait
from shoal.rounds.events import CheckedIn, Committed, Published, Reported
from shoal.rounds.pace import Population, mean_delay, retry_after, spread
from shoal.rounds.schedule import check_cron, next_opening, share, until_window
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
        check_cron(Schedule(cron=cron))


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
        ({"time_zone": "mars"}, "mars"),
        ({"time_zone": "device"}, "no window"),
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
