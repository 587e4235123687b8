"""What people say to a task while it runs: pause, resume, extend."""

from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.rounds import course
from shoal.rounds.effects import Effect, Open, Serve
from shoal.rounds.events import Rewound
from shoal.rounds.heads import Step
from shoal.rounds.phase import Phase

if TYPE_CHECKING:  # a state hands its events to these functions
    from shoal.rounds.state import TaskState


def pause(state: "TaskState", now: float) -> list[Effect]:
    """Hand out no more work; what is under way may still be reported, and a fold goes on."""
    if state.paused is None:
        state.paused = now
        state.changes += 1
    return []


def resume(state: "TaskState", now: float) -> list[Effect]:
    """Go on as if no time had passed: leases and the deadline move by the length of the pause."""
    if state.paused is None:
        return []
    seconds = max(0.0, now - state.paused)
    state.roster.postpone(seconds)
    if state.opened is not None:
        state.opened += seconds
    state.paused = None
    state.changes += 1
    return [Open(state.round, state.attempt)]


def rewind(state: "TaskState", event: Rewound, now: float) -> list[Effect]:
    """Let rounds go on from an older version; the one in progress begins again, and early stopping counts anew."""
    ended = state.phase in (Phase.FAILED, Phase.CANCELLED)
    if ended or state.phase is Phase.COMMITTING or not 0 <= event.number <= state.latest.number:
        return []
    newest = event.number == state.latest.number
    state.heads.training = None if newest else event.number
    state.heads.steps.append(Step(now, "rewound", event.number, event.by, event.reason))
    state.judged = state.latest.number
    state.changes += 1
    if state.phase is Phase.FINISHED:
        return [Serve(event.number, f"trained from next, by {event.by}")]
    return course.begin_again(state, f"rounds go on from version {event.number}", now)


def extend(state: "TaskState", rounds: int, now: float) -> list[Effect]:
    """Let the task have `rounds` rounds altogether; a finished one goes on, and early stopping counts anew."""
    if state.phase in (Phase.FAILED, Phase.CANCELLED):
        return []
    finished = state.phase is Phase.FINISHED
    if rounds <= (state.round if finished else state.spec.rounds):
        return []
    state.spec = replace(state.spec, rounds=rounds)
    state.changes += 1
    if not finished:
        return []
    state.judged, state.reason = state.latest.number, ""
    return course.open_round(state, state.round + 1, 1, now)
