"""The course of rounds: they open, close, make a version or are abandoned, until the task ends."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.core.types import ModelVersion
from shoal.rounds import schedule
from shoal.rounds.combine import fold_of, ordered, version_of
from shoal.rounds.effects import Abandon, Discard, Effect, End, Fold, Open, Publish
from shoal.rounds.events import Committed, Failed
from shoal.rounds.lease import Counted, LeaseState
from shoal.rounds.phase import Phase
from shoal.rounds.record import DEADLINE, EXPIRED, RoundRecord
from shoal.rounds.selection import MEASURED_ROUNDS, places, report_rate
from shoal.rounds.stopping import stopped

if TYPE_CHECKING:  # a state hands its events to these functions
    from shoal.rounds.state import TaskState


def enter(state: "TaskState", update: Counted, now: float) -> None:
    """Count an accepted update in the round that is collecting."""
    state.record.count(update.size, update.costs, carried=update.round != state.round)
    if state.opened is None:
        state.opened = max(state.moment(now), schedule.earliest(state.spec.schedule, state.opens))


def close_if_full(state: "TaskState", now: float) -> list[Effect]:
    """Close the round once it has its goal."""
    full = state.phase is Phase.COLLECTING and len(state.buffer) >= state.spec.plan.goal
    return [_close(state, now)] if full else []


def _close(state: "TaskState", now: float) -> Fold:
    state.phase = Phase.COMMITTING
    state.folding = min(len(state.buffer), state.spec.plan.goal)
    state.record.close(now, "committing")
    return fold(state)


def fold(state: "TaskState") -> Fold:
    """Return the order to combine the updates of the round that is closed."""
    return fold_of(state.spec, state.round, state.attempt, state.base, state.buffer[: state.folding])


def tick(state: "TaskState", now: float) -> list[Effect]:
    """End the leases whose time is over, and the round at its deadline."""
    if state.phase is not Phase.COLLECTING or state.paused is not None:
        return []
    for device in state.roster.ended(now):
        state.roster.mark(device, LeaseState.EXPIRED, EXPIRED)
        state.record.drop(EXPIRED)
        state.changes += 1
    return [] if now < state.deadline else _at_deadline(state, now)


def _at_deadline(state: "TaskState", now: float) -> list[Effect]:
    plan, accepted = state.spec.plan, len(state.buffer)
    state.changes += 1
    if plan.buffered is None and state.roster.offered:
        state.record.drop(DEADLINE, state.roster.offered)
    if accepted >= plan.minimum:
        return [_close(state, now)]
    reason = f"round {state.round} got {accepted} of at least {plan.minimum} reports in {plan.deadline:g} s"
    return _abandon(state, reason, now, lost=0 if plan.buffered else accepted)


def fail(state: "TaskState", event: Failed, now: float) -> list[Effect]:
    """Abandon the round whose updates could not be combined."""
    if not _is_committing(state, event):
        return []
    return _abandon(state, event.reason, now, lost=state.folding)


def _is_committing(state: "TaskState", event: Committed | Failed) -> bool:
    return state.phase is Phase.COMMITTING and (event.round, event.attempt) == (state.round, state.attempt)


def _abandon(state: "TaskState", reason: str, now: float, lost: int) -> list[Effect]:
    effects: list[Effect] = [Abandon(state.round, state.attempt, reason), *_forget(state, lost)]
    state.record.close(now, "abandoned", reason)
    state.changes += 1
    if state.attempt >= state.spec.plan.attempts:
        return [*effects, *end(state, Phase.FAILED, reason, now)]
    return [*effects, *open_round(state, state.round, state.attempt + 1, now)]


def begin_again(state: "TaskState", reason: str, now: float) -> list[Effect]:
    """Drop what the round in progress has, which was made from another version, and open it again for everybody."""
    effects: list[Effect] = [Abandon(state.round, state.attempt, reason), *_forget(state, len(state.buffer))]
    state.record.close(now, "abandoned", reason)
    state.roster.clear()
    state.receipts = {}
    return [*effects, *open_round(state, state.round, state.attempt + 1, now)]


def commit(state: "TaskState", event: Committed, now: float) -> list[Effect]:
    """Take the new version in, and go on with the next round or finish."""
    if not _is_committing(state, event):
        return []
    version = version_of(event, state.base, state.buffer[: state.folding], now)
    return take_in(state, version, _forget(state, state.folding), now)


def take_in(state: "TaskState", version: ModelVersion, discarded: Sequence[Effect], now: float) -> list[Effect]:
    """Add a version that is durable to the others, and go on with the next round or finish."""
    state.versions.append(version)
    state.heads.training = None
    state.record.commit(now)
    state.changes += 1
    effects: list[Effect] = [Publish(version), *discarded]
    state.former, state.receipts, state.turns = state.receipts, {}, {}
    reason = _enough(state)
    if reason:
        return [*effects, *end(state, Phase.FINISHED, reason, now)]
    return [*effects, *open_round(state, state.round + 1, 1, now)]


def _enough(state: "TaskState") -> str:
    if state.round >= state.spec.rounds:
        return f"{state.round} rounds are done"
    return stopped(state.spec.stop, state.versions[1 + state.judged :]) if state.spec.stop else ""


def _forget(state: "TaskState", number: int) -> list[Effect]:
    digests = tuple(update.digest for update in ordered(state.spec, state.buffer[:number]))
    del state.buffer[:number]
    state.folding = 0
    return [Discard(digests)] if digests else []


def open_round(state: "TaskState", number: int, attempt: int, now: float) -> list[Effect]:
    """Open a round, with the updates that wait for it already."""
    state.phase, state.round, state.attempt = Phase.COLLECTING, number, attempt
    _pass_on(state)
    at_work = state.buffer or (state.spec.plan.buffered and state.roster.offered)
    if attempt == 1:
        state.opens = schedule.next_opening(state.spec.schedule, state.opens, now)
    state.opened = max(state.moment(now), schedule.earliest(state.spec.schedule, state.opens)) if at_work else None
    state.records.append(new_record(state, now))
    for update in state.buffer[: state.spec.plan.goal]:
        enter(state, update, now)
    return [Open(number, attempt), *close_if_full(state, now)]


def _pass_on(state: "TaskState") -> None:
    # what devices still may report is kept: in buffered rounds while it is fresh, else for one round as late
    buffered = state.spec.plan.buffered
    waiting = set() if buffered else {update.device for update in state.buffer}
    for device, lease in list(state.roster.held.items()):
        if lease.state.outstanding:
            if buffered is None or state.round - lease.assignment.round > buffered.max_staleness:
                state.roster.mark(device, LeaseState.LATE)
        elif device not in waiting:
            state.roster.remove(device)


def new_record(state: "TaskState", now: float) -> RoundRecord:
    """Return the record of the attempt that begins, with how many devices it wants."""
    plan = state.spec.plan
    if plan.buffered is not None:
        return RoundRecord(state.round, state.attempt, plan.buffered.concurrency, now)
    rate = report_rate(state.records[-MEASURED_ROUNDS:])
    return RoundRecord(state.round, state.attempt, places(plan.goal, rate, plan.confidence), now)


def end(state: "TaskState", phase: Phase, reason: str, now: float) -> list[Effect]:
    """End the task; what was accepted and not combined is lost."""
    effects = _forget(state, len(state.buffer))
    if state.record.outcome in ("open", "committing"):
        state.record.close(now, "ended", reason)
    state.roster.clear()
    state.phase, state.reason, state.paused = phase, reason, None
    state.changes += 1
    return [*effects, End(phase.value, reason)]
