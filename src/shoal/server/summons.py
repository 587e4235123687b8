"""Calling waiting devices when a task has places for them, and no more of them than it has."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from shoal.core.schedule import DAY
from shoal.core.task import TaskSpec
from shoal.core.value import value
from shoal.rounds.events import CheckedIn
from shoal.rounds.state import TaskState
from shoal.server.bell import Bell
from shoal.wire.messages import CheckInRequest


@value
class Offer:
    """What a device offers, and the names of the tasks that it is confined to, () for none."""

    request: CheckInRequest
    scope: tuple[str, ...] = ()


Line: TypeAlias = Bell[Offer]
"""A bell at which devices stand in line by what they offer; `wait` is 0 there, so that equal offers are one line."""


def offered(device: str, request: CheckInRequest, elsewhere: float | None = None) -> CheckedIn:
    """Return the event of a device that offers to work."""
    # what a device says of its clock only moves windows, by a day at most
    return CheckedIn(device, request.utc_offset if abs(request.utc_offset) <= DAY else 0.0, elsewhere)


def fits(spec: TaskSpec, device: str, offer: Offer) -> bool:
    """Whether a device may work for a task at all."""
    return (spec.cohort is None or spec.cohort.holds(device)) and suits(spec, offer)


def in_scope(spec: TaskSpec, scope: tuple[str, ...]) -> bool:
    """Whether a device that is confined to the tasks of these names (() for none) may have to do with a task."""
    about = {spec.name, spec.checks, "" if spec.subject is None else spec.subject.name}
    return not scope or not about.isdisjoint(scope)


def suits(spec: TaskSpec, offer: Offer) -> bool:
    """Whether a task is of the kind that is offered, and one that the device is for."""
    return in_scope(spec, offer.scope) and _is_asked(spec, offer.request)


def _is_asked(spec: TaskSpec, request: CheckInRequest) -> bool:
    if spec.kind == "training":
        return spec.name in request.training
    if spec.kind == "evaluation":
        return request.evaluation and spec.subject is not None and spec.subject.name in request.training
    return request.statistics and (not spec.checks or spec.checks in request.training)


@dataclass(slots=True)
class Summons:
    """What one task had to offer when it was looked at last: in which attempt, and how many places."""

    bell: Line
    clock: Callable[[], float]
    attempt: tuple[int, int] = (0, 0)
    free: int = 0

    def look(self, state: TaskState) -> None:
        """Call devices for the places that came since the last look; those before were offered then."""
        now = self.clock()
        attempt, free = (state.round, state.attempt), state.free(now)
        fresh = free - self.free if attempt == self.attempt else free
        self.attempt, self.free = attempt, free
        if fresh > 0 and state.spec.schedule.separation:
            fresh = sys.maxsize  # who worked for another task is not known here: everybody may try
        self.bell.call(
            lambda offer: suits(state.spec, offer),
            lambda device, offer: fits(state.spec, device, offer) and state.wants(offered(device, offer.request), now),
            fresh,
        )
