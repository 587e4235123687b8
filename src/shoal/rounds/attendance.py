"""A whole round at one moment: devices check in, all of them report, and the version is there.

That is how a simulation plays a round in which nobody fails. The state afterwards and the effects of the commit are
those of the single events, which `tests/rounds/test_attendance.py` holds for every history; leases and assignments
that would begin and end at the same moment are never made, which is most of what the single events cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.core.receipt import Receipt
from shoal.core.schedule import Schedule
from shoal.core.types import Costs, ModelVersion
from shoal.rounds import course
from shoal.rounds.answers import identities
from shoal.rounds.combine import weighted_means
from shoal.rounds.effects import Discard, Effect
from shoal.rounds.events import Committed
from shoal.rounds.phase import Phase

if TYPE_CHECKING:
    from shoal.rounds.state import TaskState

NO_COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Attendance:
    """What the devices of a round reported, column by column and all in one order.

    `digests` are those of their updates, `weights` count 2**-16, `metrics` hold a number of each device by name.
    """

    assignments: Sequence[str]
    digests: Sequence[str]
    weights: Sequence[int]
    metrics: Mapping[str, Sequence[float]]


def attendable(state: "TaskState", devices: Sequence[str], now: float) -> bool:
    """Whether the round in progress can be played at once by these devices: nothing has happened in it yet, nobody has
    to wait, and they are as many as it needs.
    """
    plan = state.spec.plan
    untouched = not state.roster.held and not state.buffer and state.opened is None
    waits = state.paused is not None or state.spec.schedule != Schedule() or now < state.opens
    return (
        state.phase is Phase.COLLECTING
        and plan.buffered is None
        and untouched
        and not waits
        and len(devices) == plan.goal == len(set(devices))
        and plan.goal <= state.record.places
    )


def parts(state: "TaskState", devices: Sequence[str]) -> list[tuple[str, int]]:
    """Return the assignment that each device would get, and its seed."""
    return identities(state.task, state.spec.seed, state.round, state.attempt, devices)


def attend(state: "TaskState", attendance: Attendance, version: Committed, now: float) -> list[Effect]:
    """Let the devices of an `attendable` round check in and report, and take their version in."""
    count = len(attendance.assignments)
    record = state.record
    record.selected += count
    if count >= record.places:
        record.fill(now)
    record.reported += count
    record.close(now, "committing")
    state.phase, state.opened, state.changes = Phase.COMMITTING, now, state.changes + 2 * count
    given = zip(attendance.assignments, attendance.digests, strict=True)
    state.receipts = {assignment: Receipt(assignment, digest, now) for assignment, digest in given}
    made = ModelVersion(
        number=version.round,
        digest=version.digest,
        parent=state.base.digest,
        created=now,
        checkpoint=version.checkpoint,
        reports=count,
        metrics=weighted_means({name: _pairs(attendance, values) for name, values in attendance.metrics.items()}),
        costs=NO_COSTS,
    )
    ordered = sorted(zip(attendance.assignments, attendance.digests, strict=True))
    return course.take_in(state, made, [Discard(tuple(digest for _, digest in ordered))], now)


def _pairs(attendance: Attendance, values: Sequence[float]) -> list[tuple[int, float]]:
    return list(zip(attendance.weights, values, strict=True))
