"""A task's rounds as a state machine: `TaskState.handle(event, now) -> list[Effect]`.

Holds no clock, socket or thread. Whoever drives it passes the time in with each event, makes the event durable, and
then carries out the effects: a simulation, a test and a server run the same rounds. The state is a plain value that
serialises; together with the events after it, it gives the same state again (`rounds.replay`).

    collecting --goal, or deadline with the minimum--> committing --Committed--> collecting (next round) | finished
        |                                                  |
        +--deadline with too few--> next attempt <---Failed+          after the last attempt: failed
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shoal.core.origin import Origin
from shoal.core.seeds import derive
from shoal.core.task import TaskSpec
from shoal.core.types import Assignment, Costs, ModelVersion, Receipt
from shoal.rounds.effects import (
    Abandon,
    Accept,
    Assign,
    Contribution,
    Discard,
    Effect,
    End,
    Extend,
    Fold,
    Open,
    Publish,
    Refuse,
    Wait,
)
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Committed,
    Event,
    Failed,
    Published,
    Rejected,
    Released,
    Renewed,
    Reported,
    Ticked,
)

RETRY_AFTER = 5.0
"""Seconds after which a device that got no work may ask again, when nothing better is known."""


class Phase(StrEnum):
    """Where a task stands."""

    COLLECTING = "collecting"
    COMMITTING = "committing"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self in (Phase.FINISHED, Phase.FAILED, Phase.CANCELLED)


class LeaseState(StrEnum):
    """Where one device's part in a round stands."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    RELEASED = "released"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Lease:
    """One device's part in the current round."""

    assignment: Assignment
    state: LeaseState
    expires: float
    digest: str = ""
    weight: int = 0
    accepted_at: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    costs: Costs = Costs()
    reason: str = ""

    @property
    def receipt(self) -> Receipt:
        """The receipt of an accepted update."""
        return Receipt(self.assignment.id, self.digest, self.accepted_at)


@dataclass(slots=True)
class TaskState:
    """One task: its versions, and the round in progress.

    `changes` grows with every event that changed the state; a driver makes those events durable and no others (a
    check-in that yields no assignment is none).
    """

    task: str
    spec: TaskSpec
    phase: Phase
    round: int
    attempt: int
    opened: float | None
    versions: list[ModelVersion]
    leases: dict[str, Lease] = field(default_factory=dict[str, Lease])
    receipts: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    reason: str = ""
    changes: int = 1
    owners: dict[str, Origin] = field(default_factory=dict[str, Origin])

    @classmethod
    def begin(cls, event: Published, now: float) -> "TaskState":
        """Open round 1 of a task that was just published."""
        initial = ModelVersion(0, event.spec.initial, "", now)
        return cls(event.task, event.spec, Phase.COLLECTING, 1, 1, None, [initial])

    @property
    def latest(self) -> ModelVersion:
        """The newest version."""
        return self.versions[-1]

    @property
    def deadline(self) -> float:
        """When the round in progress closes at the latest: counted from its first device, infinite before."""
        return math.inf if self.opened is None else self.opened + self.spec.plan.deadline

    def next_timer(self) -> float | None:
        """Return the earliest time at which `Ticked` would change something, or None."""
        if self.phase is not Phase.COLLECTING or self.opened is None:
            return None
        expiries = [lease.expires for lease in self.leases.values() if lease.state is LeaseState.OFFERED]
        return min([self.deadline, *expiries])

    def pending(self) -> list[Effect]:
        """Return what a driver that just loaded this state must do: finish the fold that a crash interrupted."""
        return [self._fold()] if self.phase is Phase.COMMITTING else []

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return what must happen because of it."""
        if self.phase.over and not isinstance(event, Reported | CheckedIn | Renewed | Released):
            return []
        match event:
            case CheckedIn():
                return self._check_in(event.device, now)
            case Renewed():
                return self._renew(event, now)
            case Released():
                return self._release(event)
            case Reported():
                return self._report(event, now)
            case Rejected():
                return self._reject(event)
            case Committed():
                return self._commit(event, now)
            case Failed():
                if (event.round, event.attempt) != (self.round, self.attempt):
                    return []
                return self._abandon(event.reason)
            case Cancelled():
                return self._end(Phase.CANCELLED, event.reason)
            case Ticked():
                return self._tick(now)
            case Published():
                return []

    def _check_in(self, device: str, now: float) -> list[Effect]:
        if self.phase.over:
            return [Wait(device, f"task {self.spec.name!r} is {self.phase}", RETRY_AFTER)]
        if self.phase is not Phase.COLLECTING:
            return [Wait(device, f"round {self.round} is being combined", 0.0)]
        if now >= self.deadline:
            return [Wait(device, f"round {self.round} is at its deadline", 0.0)]
        held = self.leases.get(device)
        if held is not None and held.state is LeaseState.OFFERED:
            return [Assign(held.assignment, self.spec.plan.lease)]
        if held is not None and held.state is not LeaseState.EXPIRED:
            return [Wait(device, f"already {held.state} in round {self.round}", self._until_deadline(now))]
        taken = sum(lease.state in (LeaseState.OFFERED, LeaseState.ACCEPTED) for lease in self.leases.values())
        if taken >= self.spec.plan.goal:
            wait = self._until_deadline(now)
            return [Wait(device, f"round {self.round} has its {self.spec.plan.goal} devices", wait)]
        if self.opened is None:
            self.opened = now
        assignment = held.assignment if held else self._assignment(device)
        self.leases[device] = Lease(assignment, LeaseState.OFFERED, now + self.spec.plan.lease)
        self.changes += 1
        return [Assign(assignment, self.spec.plan.lease)]

    def _collecting(self, now: float) -> bool:
        return self.phase is Phase.COLLECTING and now < self.deadline

    def _until_deadline(self, now: float) -> float:
        return min(RETRY_AFTER, max(0.0, self.deadline - now))

    def _assignment(self, device: str) -> Assignment:
        identity = f"{self.task}/{self.round}/{self.attempt}/{device}"
        return Assignment(
            id=hashlib.sha256(identity.encode()).hexdigest()[:24],
            task=self.task,
            round=self.round,
            attempt=self.attempt,
            device=device,
            version=self.latest.digest,
            seed=derive(self.spec.seed, self.round, device),
            deadline=self.deadline,
        )

    def _lease(self, assignment: str, device: str) -> Lease | None:
        lease = self.leases.get(device)
        return lease if lease is not None and lease.assignment.id == assignment else None

    def _gone(self, assignment: str) -> list[Effect]:
        return [
            Refuse(
                assignment,
                "gone",
                f"assignment {assignment} has no place in round {self.round}",
                "drop it and check in again",
            )
        ]

    def _renew(self, event: Renewed, now: float) -> list[Effect]:
        lease = self._lease(event.assignment, event.device)
        if lease is None or not self._collecting(now) or lease.state is not LeaseState.OFFERED:
            return self._gone(event.assignment)
        until = now + self.spec.plan.lease
        self.leases[event.device] = replace(lease, expires=until)
        self.changes += 1
        return [Extend(event.assignment, until)]

    def _release(self, event: Released) -> list[Effect]:
        lease = self._lease(event.assignment, event.device)
        if lease is None or lease.state is not LeaseState.OFFERED:
            return self._gone(event.assignment)
        self.leases[event.device] = replace(lease, state=LeaseState.RELEASED, reason=event.reason)
        self.changes += 1
        return []

    def _reject(self, event: Rejected) -> list[Effect]:
        lease = self._lease(event.assignment, event.device)
        if lease is not None and lease.state in (LeaseState.OFFERED, LeaseState.EXPIRED):
            reason = f"{event.code}: {event.reason}"
            self.leases[event.device] = replace(lease, state=LeaseState.REJECTED, reason=reason)
            self.changes += 1
        return []

    def _report(self, event: Reported, now: float) -> list[Effect]:
        given = self.receipts.get(event.assignment)
        if given is not None:
            if given.digest == event.digest:
                return [Accept(given)]
            problem = f"assignment {event.assignment} was reported with digest {given.digest}, not {event.digest}"
            return [Refuse(event.assignment, "conflict", problem, "keep the receipt of the first report", given)]
        lease = self._lease(event.assignment, event.device)
        if lease is None or not self._collecting(now) or lease.state not in (LeaseState.OFFERED, LeaseState.EXPIRED):
            return self._gone(event.assignment)
        accepted = replace(
            lease,
            state=LeaseState.ACCEPTED,
            digest=event.digest,
            weight=event.weight,
            accepted_at=now,
            metrics=event.metrics,
            costs=event.costs,
        )
        self.leases[event.device] = accepted
        self.receipts[event.assignment] = accepted.receipt
        if event.origin is not None:
            self.owners[event.device] = event.origin
        self.changes += 1
        effects: list[Effect] = [Accept(accepted.receipt)]
        if len(self._accepted()) >= self.spec.plan.goal:
            effects.append(self._close())
        return effects

    def _accepted(self) -> list[Lease]:
        found = [lease for lease in self.leases.values() if lease.state is LeaseState.ACCEPTED]
        return sorted(found, key=lambda lease: lease.assignment.id)

    def _close(self) -> Fold:
        self.phase = Phase.COMMITTING
        return self._fold()

    def _fold(self) -> Fold:
        contributions = tuple(
            Contribution(lease.assignment.id, lease.digest, lease.weight) for lease in self._accepted()
        )
        return Fold(self.round, self.attempt, self.latest, contributions)

    def _tick(self, now: float) -> list[Effect]:
        if self.phase is not Phase.COLLECTING:
            return []
        for device, lease in self.leases.items():
            if lease.state is LeaseState.OFFERED and lease.expires <= now:
                self.leases[device] = replace(lease, state=LeaseState.EXPIRED, reason="its lease ran out")
                self.changes += 1
        if now < self.deadline:
            return []
        self.changes += 1
        accepted = len(self._accepted())
        if accepted >= self.spec.plan.minimum:
            return [self._close()]
        reason = (
            f"round {self.round} got {accepted} of at least {self.spec.plan.minimum} reports "
            f"in {self.spec.plan.deadline:g} s"
        )
        return self._abandon(reason)

    def _abandon(self, reason: str) -> list[Effect]:
        effects: list[Effect] = [Abandon(self.round, self.attempt, reason), *self._forget()]
        self.changes += 1
        if self.attempt >= self.spec.plan.attempts:
            return [*effects, *self._end(Phase.FAILED, reason)]
        return [*effects, *self._open(self.round, self.attempt + 1)]

    def _commit(self, event: Committed, now: float) -> list[Effect]:
        here = (self.round, self.attempt)
        if self.phase is not Phase.COMMITTING or (event.round, event.attempt) != here:
            return []
        leases = self._accepted()
        version = ModelVersion(
            number=self.round,
            digest=event.digest,
            parent=self.latest.digest,
            created=now,
            checkpoint=event.checkpoint,
            reports=len(leases),
            metrics=_weighted(leases),
            costs=sum((lease.costs for lease in leases), Costs()),
        )
        self.versions.append(version)
        self.changes += 1
        effects: list[Effect] = [Publish(version), *self._forget()]
        if self.round >= self.spec.rounds:
            return [*effects, *self._end(Phase.FINISHED, f"{self.round} rounds are done")]
        return [*effects, *self._open(self.round + 1, 1)]

    def _forget(self) -> list[Effect]:
        digests = tuple(lease.digest for lease in self._accepted())
        self.leases = {}
        return [Discard(digests)] if digests else []

    def _open(self, number: int, attempt: int) -> list[Effect]:
        self.phase, self.round, self.attempt, self.opened = Phase.COLLECTING, number, attempt, None
        return [Open(number, attempt)]

    def _end(self, phase: Phase, reason: str) -> list[Effect]:
        effects = self._forget()
        self.phase, self.reason = phase, reason
        self.changes += 1
        return [*effects, End(phase.value, reason)]


def _weighted(leases: list[Lease]) -> dict[str, float]:
    # one device's NaN or infinity says nothing about the others; shares of the weight keep the sum from overflowing
    measured: dict[str, list[tuple[int, float]]] = {}
    for lease in leases:
        for name, value in lease.metrics.items():
            if math.isfinite(value):
                measured.setdefault(name, []).append((lease.weight, value))
    return {name: _mean(measured[name]) for name in sorted(measured)}


def _mean(measured: list[tuple[int, float]]) -> float:
    total = sum(weight for weight, _ in measured)
    return math.fsum(weight / total * value for weight, value in measured)
