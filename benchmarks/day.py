"""A day of a million devices in virtual time, against the real TaskState and the real pace.

They begin spread over the day as pace left them; each comes when it was told to, if it can: at night a fourth as many
can as by day, and the others try again half an hour later. One in ten never reports. `virtual_day_arrival_error` is the
mean over the hours of |arrivals - demand| / demand, where demand is the population once a day, evenly. A round hung
when it was open longer than its deadline. `virtual_day_cpu_s` is the processor time of this process.
"""

import heapq
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from shoal.core.schedule import DAY
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.rounds.effects import Assign, Fold, Wait
from shoal.rounds.events import CheckedIn, Committed, Event, Published, Reported, Ticked
from shoal.rounds.pace import Population, retry_after
from shoal.rounds.schedule import share
from shoal.rounds.state import TaskState

DROP_OUT = 0.1
TRY_AGAIN = 1800.0
HOUR = 3600.0
ATTEMPTS = 1000
DEADLINE = 600.0
SEED = 1


def reachable(now: float) -> float:
    """Return the share of devices that can come: 1 at two in the afternoon, a fourth at two at night."""
    return 0.625 + 0.375 * math.cos(2 * math.pi * (now / DAY - 14 / 24))


@dataclass
class Day:
    """A population in virtual time: who comes when, and what came of it."""

    devices: int
    task: TaskState
    population: Population
    draws: np.random.Generator
    queue: list[tuple[float, int, int]] = field(default_factory=list[tuple[float, int, int]])
    arrivals: list[int] = field(default_factory=lambda: [0] * 24)
    hung: set[int] = field(default_factory=set[int])
    versions: int = 0


def virtual_day(devices: int) -> Day:
    """Let a population come for a day."""
    plan = RoundPlan(max(1, devices // 1000), 1, DEADLINE, 300.0, ATTEMPTS, confidence=0.95)
    spec = TaskSpec("day", {"w": ArraySpec((1,), "float32")}, 10_000, plan, seed=SEED, initial="v0")
    task = TaskState.begin(Published("day-1", spec), 0.0)
    day = Day(devices, task, Population.of(map(str, range(devices)), 0.0), np.random.default_rng(SEED))
    starts = day.draws.random(devices) * DAY
    day.queue = [(float(at), device, 0) for device, at in enumerate(starts)]
    heapq.heapify(day.queue)
    while day.queue[0][0] < DAY:
        at, device, assigned = heapq.heappop(day.queue)
        _pass_time(day, at)
        if assigned:
            _report(day, device, at)
        elif day.draws.random() > reachable(at):
            heapq.heappush(day.queue, (at + TRY_AGAIN * (0.5 + day.draws.random()), device, 0))
        else:
            _arrive(day, device, at)
    return day


def _pass_time(day: Day, now: float) -> None:
    while (timer := day.task.next_timer()) is not None and timer <= now:
        _take(day, Ticked(), timer)
    # a deadline that no timer announces would leave the round open
    if now > day.task.deadline:
        day.hung.add(day.task.round)


def _arrive(day: Day, device: int, now: float) -> None:
    name = str(device)
    day.arrivals[int(now / HOUR)] += 1
    day.population.arrived(name, now)
    [effect] = day.task.handle(CheckedIn(name), now)
    match effect:
        case Assign() if day.draws.random() >= DROP_OUT:
            heapq.heappush(day.queue, (now + 30.0 + 60.0 * day.draws.random(), device, 1))
        case Assign():
            heapq.heappush(day.queue, (now + DAY, device, 0))
        case Wait():
            _come_back(day, device, now, effect.retry_after)
        case _:
            raise AssertionError(effect)


def _come_back(day: Day, device: int, now: float, wait: float) -> None:
    places = day.task.record.places
    draw = share(str(device), f"{now:.3f}")
    delay = retry_after(wait, places, DEADLINE / 2, day.population.active, draw)
    heapq.heappush(day.queue, (now + delay, device, 0))


def _report(day: Day, device: int, now: float) -> None:
    lease = day.task.leases.get(str(device))
    if lease is not None:
        _take(day, Reported(lease.assignment.id, str(device), "u", 1, 1), now)
    _come_back(day, device, now, 0.0)


def _take(day: Day, event: Event, now: float) -> None:
    for effect in day.task.handle(event, now):
        if isinstance(effect, Fold):
            day.versions += 1
            _take(day, Committed(effect.round, effect.attempt, f"v{effect.round}", ""), now)


def arrival_error(arrivals: list[int], devices: int) -> float:
    """Return how far the hours are from an even day, on average and relative to it."""
    demand = devices / 24
    return sum(abs(number - demand) for number in arrivals) / 24 / demand


def figures(devices: int) -> Mapping[str, float]:
    """Measure the virtual day."""
    began = time.process_time()
    day = virtual_day(devices)
    return {
        "virtual_day_hung_rounds": len(day.hung),
        "virtual_day_arrival_error": arrival_error(day.arrivals, devices),
        "virtual_day_checkins": sum(day.arrivals),
        "virtual_day_versions": day.versions,
        "virtual_day_cpu_s": time.process_time() - began,
    }
