"""A population in virtual time, against the real state machine and the real pace.

Every device checks in when it was told to, if it can be reached; with an assignment it trains for as long as its rows
and its speed say, keeps its lease alive meanwhile, and reports, or is never heard of again. Nothing here knows models:
what a device reports, and how a version is made, is asked of the two functions that a crowd is given.
"""

import heapq
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.core.errors import Abandoned
from shoal.core.schedule import DAY
from shoal.core.seeds import derive
from shoal.core.types import Assignment
from shoal.rounds import pace
from shoal.rounds.effects import Assign, Effect, End, Fold, Refuse, Wait
from shoal.rounds.events import CheckedIn, Committed, Event, Late, Rejected, Renewed, Reported, Ticked
from shoal.rounds.state import RETRY_AFTER, Phase, TaskState
from shoal.simulation.population import HOUR, Population

DRAWN = 4096
"""Random numbers that are drawn at once."""

LEAST_DELAY = 1e-3


@dataclass(frozen=True, slots=True)
class Work:
    """What a crowd asks of who drives it.

    `rows` says how many rows a device (by position) trains on; `finished` what it reports, asked for when the report
    is due and would count; `combined` how a round's version is made.
    """

    rows: Callable[[int], float]
    finished: Callable[[Assignment], Reported | Rejected]
    combined: Callable[[Fold], Committed]


class Crowd:
    """Devices by position in `names`, and what they did: `arrivals` by hour, `versions`, the rounds that `hung`.

    A round hung when it was open past its deadline. `now` is virtual time in seconds, `over` whether the task is.
    Deterministic by `seed`.
    """

    def __init__(self, state: TaskState, population: Population, names: Sequence[str], seed: int, work: Work) -> None:
        self.state = state
        self.now = 0.0
        self.arrivals: list[int] = []
        self.versions = 0
        self.hung: set[int] = set()
        self._population = population
        self._reachable = population.reachable
        self._names = names
        self._work = work
        self._draws = np.random.Generator(np.random.Philox(derive(seed, "population")))
        self._speeds = population.speeds.draw(self._draws, len(names))
        self._active = pace.Population.of(names, 0.0)  # the coordinator has known them for a day
        self._uniforms = _Stream(lambda: self._draws.random(DRAWN))
        self._latencies = _Stream(lambda: population.latencies.draw(self._draws, DRAWN))
        self._parked: list[int] = []
        self._working: dict[str, Assignment] = {}
        self.over = state.phase.over
        self._queue: list[tuple[float, int, Assignment | None]] = []
        self._enter()

    def _enter(self) -> None:
        # a large population comes as pace would have left it, a small one is here at once
        count = len(self._names)
        mean = 0.0 if self._small else pace.mean_delay(count, self.state.record.places / self._selecting)
        starts = self._draws.random(count) * mean + LEAST_DELAY
        self._queue = [(float(at), device, None) for device, at in enumerate(starts)]
        heapq.heapify(self._queue)

    @property
    def _selecting(self) -> float:
        return self.state.spec.plan.deadline / 2  # as the coordinator has it: the other half is left for the work

    @property
    def _small(self) -> bool:
        return len(self._names) <= max(pace.SMALL, pace.ROUNDS * self.state.record.places)

    def at_work(self) -> Collection[Assignment]:
        """Return the assignments that will be reported, in the order in which they were given."""
        return self._working.values()

    def until(self, end: float) -> None:
        """Let everything happen that happens before a time, or until the task is over."""
        while not self.over and self._queue[0][0] < end:
            self.step()

    def step(self) -> None:
        """Let the next thing happen. Raises Abandoned when nothing can."""
        if not self._queue:
            self._wait_for_timer()
            return
        at, device, part = heapq.heappop(self._queue)
        self._pass_time(at)
        if self.over:
            return
        if part is not None:
            self._at_work(device, part)
        elif self._uniforms.next() > self._reachable.at(at):
            self._come(device, self._population.try_again * (0.5 + self._uniforms.next()))
        else:
            self._arrive(device)
        if self._parked:
            self._wake()

    def _wait_for_timer(self) -> None:
        timer = self.state.next_timer()
        if timer is None:
            raise Abandoned(f"round {self.state.round} waits for devices that never come", "see its records")
        self._pass_time(timer)

    def _pass_time(self, now: float) -> None:
        while (timer := self.state.next_timer()) is not None and timer <= now:
            self.now = max(self.now, timer)
            self._take(Ticked())
            if self._parked:
                self._wake()
        self.now = now
        if now > self.state.deadline:
            self.hung.add(self.state.round)

    def _arrive(self, device: int) -> None:
        name, hour = self._names[device], int(self.now / HOUR)
        self.arrivals.extend([0] * (hour + 1 - len(self.arrivals)))
        self.arrivals[hour] += 1
        self._active.arrived(name, self.now)
        [effect] = self.state.handle(CheckedIn(name), self.now)
        match effect:
            case Assign(assignment):
                self._begin(device, assignment)
            case Wait():
                self._rest(device, effect.retry_after)
            case _:
                raise AssertionError(effect)

    def _begin(self, device: int, assignment: Assignment) -> None:
        if self._uniforms.next() < self._population.dropout:
            # it is lost for this round; as one that is switched off it comes another time
            self._come(device, self.state.spec.plan.lease + self._paced(0.0))
            return
        seconds = self._work.rows(device) * self.state.spec.local.epochs / self._speeds[device]
        done = self.now + float(seconds) + self._latencies.next() + self._latencies.next()
        lease = self.state.spec.plan.lease
        renewals = int((done - self.now) / (lease / 2)) if done - self.now > lease else 0
        for number in range(1, renewals + 1):
            heapq.heappush(self._queue, (self.now + number * lease / 2, -1 - device, assignment))
        heapq.heappush(self._queue, (done, device, assignment))
        self._working[assignment.id] = assignment

    def _at_work(self, device: int, part: Assignment) -> None:
        if device < 0:
            self._take(Renewed(part.id, part.device))
            return
        self._working.pop(part.id, None)
        if self.state.expects(part.id, part.device, self.now):
            effects = self._take(self._work.finished(part))
            if any(isinstance(effect, Refuse) for effect in effects):
                self._take(Late(part.id, part.device))
        else:
            self._take(Late(part.id, part.device))
        self._rest(device, 0.0)

    def _rest(self, device: int, wait: float) -> None:
        if self._small and wait <= RETRY_AFTER:
            self._parked.append(device)  # it stays on the line, as an agent's long poll does
        else:
            self._come(device, self._paced(wait))

    def _paced(self, wait: float) -> float:
        places = self.state.record.places
        return pace.retry_after(wait, places, self._selecting, self._active.active, self._uniforms.next())

    def _come(self, device: int, delay: float) -> None:
        heapq.heappush(self._queue, (self.now + max(delay, LEAST_DELAY), device, None))

    def _wake(self) -> None:
        """Call as many of those on the line as the round wants, any of them."""
        if self.state.phase is not Phase.COLLECTING:
            return
        plan = self.state.spec.plan
        held = self.state.roster.offered + (0 if plan.buffered else len(self.state.buffer))
        for _ in range(min(self.state.record.places - held, len(self._parked))):
            chosen = int(self._uniforms.next() * len(self._parked))
            self._parked[chosen], self._parked[-1] = self._parked[-1], self._parked[chosen]
            self._arrive(self._parked.pop())

    def _take(self, event: Event) -> list[Effect]:
        effects = self.state.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, Fold):
                self.versions += 1
                self._take(self._work.combined(effect))
            elif isinstance(effect, End):
                self.over = True
        return effects


class _Stream:
    """Random numbers one at a time, drawn many at once."""

    def __init__(self, draw: Callable[[], npt.NDArray[np.float64]]) -> None:
        self._draw = draw
        self._left: list[float] = []

    def next(self) -> float:
        """Return the next one."""
        if not self._left:
            self._left = self._draw().tolist()
        return self._left.pop()


def spread_over_a_day(crowd_arrivals: Sequence[int], devices: int) -> float:
    """Return how far the hours of a day are from even arrivals of every device once, on average and relative."""
    demand = devices / (DAY / HOUR)
    return sum(abs(number - demand) for number in crowd_arrivals[:24]) / 24 / demand
