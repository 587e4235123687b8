"""What devices say to a task, and what it answers."""

from typing import TYPE_CHECKING

from shoal.algorithms.buffered import staleness_weight
from shoal.core.types import Assignment
from shoal.rounds import course, schedule
from shoal.rounds.answers import assignment_of, gone, repeated
from shoal.rounds.early import not_yet, serve
from shoal.rounds.effects import Accept, Assign, Effect, Extend, Wait
from shoal.rounds.events import CheckedIn, Late, Rejected, Released, Renewed, Reported
from shoal.rounds.lease import Counted, Lease, LeaseState
from shoal.rounds.phase import Phase
from shoal.rounds.record import EXPIRED

if TYPE_CHECKING:  # a state hands its events to these functions
    from shoal.rounds.state import TaskState

RETRY_AFTER = 5.0
"""Seconds after which a device that got no work may ask again, when nothing better is known."""

DONE = (LeaseState.ACCEPTED, LeaseState.RELEASED, LeaseState.REJECTED)


def check_in(state: "TaskState", event: CheckedIn, now: float) -> list[Effect]:
    """Give a device its assignment, the same one again on a repeat, or say when to come back."""
    wait = turned_away(state, event, now)
    if wait is not None:
        return [wait]
    held = state.roster.get(event.device)
    if held is not None and held.state is LeaseState.OFFERED:
        return [Assign(held.assignment, state.spec.plan.lease)]
    return [_assign(state, event.device, held, now)]


def turned_away(state: "TaskState", event: CheckedIn, now: float) -> Wait | None:
    """Return when a device is to come back that would get no work now, None if it would."""
    closed = _closed(state, now)
    if closed is not None:
        return Wait(event.device, *closed)
    held = state.roster.get(event.device)
    if held is not None and held.state is LeaseState.OFFERED:
        return None
    unwanted = _unwanted(state, event, held, now)
    return None if unwanted is None else Wait(event.device, *unwanted)


def wants(state: "TaskState", event: CheckedIn, now: float) -> bool:
    """Whether a device that checks in now would get work."""
    return turned_away(state, event, now) is None


def free(state: "TaskState", now: float) -> int:
    """Return for how many more devices there is work now."""
    # where cron is in the devices' own time, each knows its own opening
    early = now < state.opens and state.spec.schedule.time_zone == "utc"
    if early or _closed(state, now) is not None:
        return 0
    return max(0, state.record.places - _taken(state))


def _unwanted(state: "TaskState", event: CheckedIn, held: Lease | None, now: float) -> tuple[str, float] | None:
    if held is not None and held.state in DONE:
        return f"already {held.state} in round {state.round}", _until_next_round(state, event, now)
    early = not_yet(state, event, now)
    if early is not None:
        return early
    wanted = state.record.places
    if _taken(state) >= wanted:
        return f"round {state.round} has its {wanted} devices", _until_deadline(state, now)
    return None


def _closed(state: "TaskState", now: float) -> tuple[str, float] | None:
    if state.phase.over:
        return f"task {state.spec.name!r} is {state.phase}", RETRY_AFTER
    if state.paused is not None:
        return f"task {state.spec.name!r} is paused", RETRY_AFTER
    if state.phase is Phase.COMMITTING and not _goes_on(state):
        return f"round {state.round} is being combined", 0.0
    if state.phase is Phase.COLLECTING and now >= state.deadline:
        return f"round {state.round} is at its deadline", 0.0
    return None


def _goes_on(state: "TaskState") -> bool:
    # a fold that is slow, as on a full disk, must not let the buffer grow for ever
    plan = state.spec.plan
    return plan.buffered is not None and state.round < state.spec.rounds and state.destination == state.round + 1


def _taken(state: "TaskState") -> int:
    return state.roster.offered + (0 if state.spec.plan.buffered else len(state.buffer))


def _until_deadline(state: "TaskState", now: float) -> float:
    return min(RETRY_AFTER, max(0.0, state.deadline - now))


def _until_next_round(state: "TaskState", event: CheckedIn, now: float) -> float:
    plan = state.spec.schedule
    if not plan.opens_rounds:
        return _until_deadline(state, now)
    place = (state.spec.seed, state.round + 1, event.device)
    opens = schedule.next_opening(plan, state.opens, now)
    return max(0.0, schedule.turn(plan, opens, place, event.utc_offset) - now)


def _assign(state: "TaskState", device: str, held: Lease | None, now: float) -> Assign:
    if state.opened is None:
        state.opened = now
    if held is not None and held.state is LeaseState.EXPIRED and held.assignment.round == state.round:
        assignment = held.assignment
        _recover(state, held)
    else:
        assignment = _assignment(state, device, now)
        state.record.selected += 1
        serve(state, device, now)
    state.roster.put(device, Lease(assignment, LeaseState.OFFERED, now + state.spec.plan.lease))
    if not state.record.full and _taken(state) >= state.record.places:
        state.record.fill(now)
    state.changes += 1
    return Assign(assignment, state.spec.plan.lease)


def _assignment(state: "TaskState", device: str, now: float) -> Assignment:
    place = (state.round, state.attempt, device)
    if state.spec.plan.buffered is None:
        return assignment_of(state.task, state.spec, place, state.base, state.deadline)
    turn = state.turns.get(device, 0)
    state.turns[device] = turn + 1
    deadline = now + state.spec.plan.deadline
    return assignment_of(state.task, state.spec, place, state.base, deadline, turn)


def takes(state: "TaskState", lease: Lease, now: float) -> bool:
    """Whether an update for this part would be accepted now."""
    plan, kept = state.spec.plan, lease.state
    carries = plan.late == "carry"
    if state.phase.over or not (kept.outstanding or (kept is LeaseState.LATE and carries)):
        return False
    if plan.buffered is not None:
        behind = state.destination - lease.assignment.round
        return behind <= plan.buffered.max_staleness and state.destination <= state.spec.rounds
    if state.phase is Phase.COLLECTING:
        return state.moment(now) < state.deadline
    return carries and state.destination == state.round + 1 <= state.spec.rounds


def renew(state: "TaskState", event: Renewed, now: float) -> list[Effect]:
    """Extend a lease whose device makes progress."""
    lease = state.lease(event.assignment, event.device)
    if lease is None or lease.state is LeaseState.EXPIRED or not takes(state, lease, now):
        return [gone(event.assignment, state.round)]
    if lease.state is LeaseState.OFFERED:
        state.roster.put(event.device, Lease(lease.assignment, lease.state, state.moment(now) + state.spec.plan.lease))
        state.changes += 1
    return [Extend(event.assignment, now + state.spec.plan.lease)]


def release(state: "TaskState", event: Released) -> list[Effect]:
    """Take a place back."""
    lease = state.lease(event.assignment, event.device)
    if lease is None or lease.state not in (LeaseState.OFFERED, LeaseState.LATE):
        return [gone(event.assignment, state.round)]
    if lease.state is LeaseState.LATE or event.again:
        state.roster.remove(event.device)
        state.served.pop(event.device, None)
    else:
        state.roster.mark(event.device, LeaseState.RELEASED, event.reason)
    if lease.state is LeaseState.OFFERED:
        state.record.drop(f"released: {event.reason}")
    state.changes += 1
    return []


def reject(state: "TaskState", event: Rejected) -> list[Effect]:
    """Note that a device's update is not what the task asks for; it is not asked again in this attempt."""
    lease = state.lease(event.assignment, event.device)
    carried = lease is not None and lease.state is LeaseState.LATE and state.spec.plan.late == "carry"
    if lease is None or not (lease.state.outstanding or carried):
        return []
    reason = f"{event.code}: {event.reason}"
    _recover(state, lease)
    state.record.refuse(reason)
    state.roster.mark(event.device, LeaseState.REJECTED, reason)
    state.changes += 1
    return []


def late(state: "TaskState", event: Late, now: float) -> list[Effect]:
    """Count, once, a device whose update came when its round took no more."""
    lease = state.lease(event.assignment, event.device)
    if lease is None or lease.state in DONE or takes(state, lease, now):
        return []
    part = lease.assignment
    record = next((r for r in reversed(state.records) if (r.round, r.attempt) == (part.round, part.attempt)), None)
    if record is not None:
        record.late += 1
    state.roster.remove(event.device)
    state.changes += 1
    return []


def report(state: "TaskState", event: Reported, now: float) -> list[Effect]:
    """Count an update in, or answer why not; a repeat gets the receipt that it got before."""
    given = state.receipt(event.assignment)
    if given is not None:
        return [repeated(given, event)]
    lease = state.lease(event.assignment, event.device)
    if lease is None or not takes(state, lease, now):
        return [gone(event.assignment, state.round)]
    update = _counted(state, event, lease.assignment, now)
    state.buffer.append(update)
    receipt = state.receipts[event.assignment] = update.receipt
    if event.origin is not None:
        state.owners[event.device] = event.origin
    _recover(state, lease)
    _give_up_place(state, event.device)
    state.changes += 1
    if state.phase is Phase.COLLECTING:
        course.enter(state, update, now)
    return [Accept(receipt), *course.close_if_full(state, now)]


def _counted(state: "TaskState", event: Reported, part: Assignment, now: float) -> Counted:
    weight = event.weight
    if state.spec.plan.buffered is not None:
        weight = staleness_weight(weight, state.destination - part.round)
    return Counted(
        assignment=part.id,
        device=event.device,
        digest=event.digest,
        size=event.size,
        weight=weight,
        full=event.weight,
        accepted_at=now,
        round=part.round,
        version=part.version,
        metrics=event.metrics,
        costs=event.costs,
    )


def _give_up_place(state: "TaskState", device: str) -> None:
    if state.spec.plan.buffered is None:
        state.roster.mark(device, LeaseState.ACCEPTED)
    else:
        state.roster.remove(device)


def _recover(state: "TaskState", lease: Lease) -> None:
    part, record = lease.assignment, state.record
    if lease.state is LeaseState.EXPIRED and (part.round, part.attempt) == (record.round, record.attempt):
        record.recover(EXPIRED)
