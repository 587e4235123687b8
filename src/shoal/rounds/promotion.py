"""Which version becomes the one that devices serve, and which no longer is.

    newest --always--> served            newest --canary--> candidate --guard--> served | rolled back
    any --person--> served | candidate   served --person--> rolled back, and the one before is served again

Serving and training are two heads: nothing here changes what rounds train from. What was rolled back is served again
only if a person promotes it. A person who rolls back, or promotes an older version, holds the head there until a person
promotes the newest one.
"""

from typing import TYPE_CHECKING, TypeAlias

from shoal.core.types import ModelVersion
from shoal.rounds.effects import Effect, Serve
from shoal.rounds.events import CanaryBegan, Guarded, GuardPublished, Noted, Promoted, RolledBack, Unfit
from shoal.rounds.heads import GUARD, Candidate, Measured, Note, Refusal, Step, What

if TYPE_CHECKING:  # a state hands its events to these functions
    from shoal.rounds.state import TaskState

Change: TypeAlias = Promoted | RolledBack | CanaryBegan | GuardPublished | Guarded | Noted | Unfit

REFUSALS = 1000
"""Refusals that are kept for each version; more say nothing new."""


def happened(state: "TaskState", event: Change, now: float) -> list[Effect]:
    """Take an event about versions; one that does not fit where the heads stand changes nothing."""
    if not 0 <= event.number <= state.latest.number:
        return []
    match event:
        case Promoted():
            return _promote(state, event, now)
        case RolledBack():
            return _roll_back(state, event, now)
        case CanaryBegan():
            return _begin(state, event, now)
        case GuardPublished() | Guarded():
            return _guard(state, event, now)
        case Noted():
            state.heads.notes.append(Note(now, event.number, event.by, event.text))
            state.changes += 1
            return []
        case Unfit():
            return _unfit(state, event, now)


def head(state: "TaskState") -> int:
    """Return the number of the version that is served where there is no canary."""
    if state.heads.chosen is not None:
        return state.heads.chosen
    return state.latest.number if state.spec.serving.promote == "always" else 0


def served_by(state: "TaskState", device: str) -> ModelVersion:
    """Return the version that a device serves: the candidate if the device is one that tries it, else the head."""
    candidate = state.heads.candidate
    if candidate is not None and candidate.cohort(state.task).holds(device):
        return state.versions[candidate.number]
    return state.versions[head(state)]


def before(state: "TaskState") -> int | None:
    """Return the version that a roll-back of the head leads to, None where there is none before it."""
    heads, now = state.heads, head(state)
    # while the newest is served, each one was
    always = state.spec.serving.promote == "always"
    followed, chosen = range(now - 1, heads.followed - 1, -1) if always else (), reversed(heads.former)
    order = (*followed, *chosen) if heads.chosen is None else (*chosen, *followed)
    return next((number for number in order if number != now and number not in heads.barred), None)


def next_step(state: "TaskState", now: float) -> CanaryBegan | Promoted | RolledBack | None:
    """Return what is to happen by itself now: a canary of the newest version begins, or one is decided."""
    heads, candidate, newest = state.heads, state.heads.candidate, state.latest.number
    if candidate is not None:
        return _verdict(state, candidate, now)
    new = newest > max(head(state), heads.judged) and newest not in heads.barred
    if state.spec.serving.promote == "canary" and new and not heads.held:
        return CanaryBegan(newest, state.spec.serving.canary, GUARD)
    return None


def _verdict(state: "TaskState", candidate: Candidate, now: float) -> Promoted | RolledBack | None:
    canary, number, found = candidate.canary, candidate.number, candidate.measured
    refused = [refusal for refusal in state.heads.refusals if refusal.number == number]
    if len(refused) > canary.refusals:
        return _back(state, number, f"{len(refused)} devices cannot use it: {refused[0].reason}")
    if found is None:
        late = now >= candidate.since + canary.deadline
        return _back(state, number, f"not measured within {canary.deadline:g} s") if late else None
    if found.reason or found.rows < canary.minimum_rows:
        return _back(state, number, found.reason or f"measured on {found.rows} rows of {canary.minimum_rows}")
    said = f"{canary.metric} {found.candidate:.6g}, served {found.head:.6g}, over {found.rows} rows"
    if canary.worse(found.candidate, found.head):
        return _back(state, number, said)
    return Promoted(number, GUARD, said)


def _back(state: "TaskState", number: int, reason: str) -> RolledBack:
    return RolledBack(number, head(state), GUARD, reason)


def _step(state: "TaskState", now: float, what: What, number: int, by: str, reason: str = "") -> list[Effect]:
    state.heads.steps.append(Step(now, what, number, by, reason))
    state.changes += 1
    return [Serve(number, f"{what} by {by}{': ' if reason else ''}{reason}")]


def _promote(state: "TaskState", event: Promoted, now: float) -> list[Effect]:
    heads, number, by_guard = state.heads, event.number, event.by == GUARD
    on_trial = heads.candidate is not None and heads.candidate.number == number
    if by_guard and not on_trial:
        return []
    if not by_guard:
        heads.barred = [barred for barred in heads.barred if barred != number]
        heads.held = number != state.latest.number
    _move(state, number)
    heads.candidate = None
    return _step(state, now, "promoted", number, event.by, event.reason)


def _move(state: "TaskState", number: int) -> None:
    heads, former = state.heads, head(state)
    if former != number:
        heads.former.append(former)
    follows = state.spec.serving.promote == "always" and number == state.latest.number
    if follows and heads.chosen is not None:
        heads.followed = number
    heads.chosen = None if follows else number
    heads.judged = max(heads.judged, number)


def _roll_back(state: "TaskState", event: RolledBack, now: float) -> list[Effect]:
    heads, number = state.heads, event.number
    on_trial = heads.candidate is not None and heads.candidate.number == number
    if not on_trial and (number != head(state) or event.by == GUARD or not 0 <= event.to <= state.latest.number):
        return []
    heads.candidate = None
    heads.barred.append(number)
    if event.by != GUARD:
        heads.held = True
        heads.chosen = event.to if not on_trial else head(state)
        heads.former = [served for served in heads.former if served not in (number, heads.chosen)]
    return _step(state, now, "rolled back", number, event.by, event.reason)


def _begin(state: "TaskState", event: CanaryBegan, now: float) -> list[Effect]:
    heads, number = state.heads, event.number
    if heads.candidate is not None or number == head(state):
        return []
    if event.by != GUARD:
        heads.barred = [barred for barred in heads.barred if barred != number]
        heads.held = False
    heads.candidate = Candidate(number, event.canary, now)
    heads.judged = max(heads.judged, number)
    heads.refusals = [refusal for refusal in heads.refusals if refusal.number != number]
    return _step(state, now, "canary", number, event.by, f"{event.canary.fraction:.0%} of the devices")


def _guard(state: "TaskState", event: GuardPublished | Guarded, now: float) -> list[Effect]:
    candidate = state.heads.candidate
    if candidate is None or candidate.number != event.number or candidate.measured is not None:
        return []
    if isinstance(event, GuardPublished):
        candidate.guard = event.task
        return _step(state, now, "guard", event.number, GUARD, event.task)
    candidate.measured = Measured(event.candidate, event.head, event.rows, event.reason)
    found = f"{event.candidate:.6g}, served {event.head:.6g}, over {event.rows} rows"
    return _step(state, now, "measured", event.number, GUARD, event.reason or found)


def _unfit(state: "TaskState", event: Unfit, now: float) -> list[Effect]:
    known = [refusal.device for refusal in state.heads.refusals if refusal.number == event.number]
    if event.device in known or len(known) >= REFUSALS or served_by(state, event.device).number != event.number:
        return []
    state.heads.refusals.append(Refusal(event.number, event.device, event.reason))
    return _step(state, now, "refused by a device", event.number, event.device, event.reason)
