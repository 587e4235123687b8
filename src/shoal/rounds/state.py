"""A task's rounds as a state machine: `TaskState.handle(event, now) -> list[Effect]`.

Holds no clock, socket or thread. Whoever drives it passes the time in with each event, makes the event durable, and
then carries out the effects: a simulation, a test and a server run the same rounds. The state is a plain value that
serialises; together with the events after it, it gives the same state again (`rounds.replay`).

    collecting --goal, or deadline with the minimum--> committing --Committed--> collecting (next round) | finished
        |                                                  |
        +--deadline with too few--> next attempt <---Failed+          after the last attempt: failed

Updates are kept in `buffer` in the order in which they were accepted; the first `folding` of them are being combined.
Synchronous rounds give each device one part in a round, and turn away who comes after its close, or carry the update
into the next round. Buffered rounds hand out parts without end, while a version is made as well, and damp an update
by how many versions it is behind. Which updates make which version follows from the order of the accepted reports.

What devices say is answered in `devices.py`, rounds open and close in `course.py`, people are heard in `people.py`, and
which versions devices serve is settled in `promotion.py`.
"""

import math
from dataclasses import dataclass, field

from shoal.core.origin import Origin
from shoal.core.receipt import Receipt
from shoal.core.task import TaskSpec
from shoal.core.types import ModelVersion
from shoal.rounds import course, devices, people, promotion, schedule
from shoal.rounds.effects import Effect, Wait
from shoal.rounds.events import (
    CanaryBegan,
    Cancelled,
    CheckedIn,
    Committed,
    Event,
    Extended,
    Failed,
    Guarded,
    GuardPublished,
    Late,
    Noted,
    Paused,
    Promoted,
    Published,
    Rejected,
    Released,
    Renewed,
    Reported,
    Resumed,
    Rewound,
    RolledBack,
    Ticked,
    Unfit,
)
from shoal.rounds.heads import Heads
from shoal.rounds.lease import Counted, Lease, Roster
from shoal.rounds.lease import LeaseState as LeaseState
from shoal.rounds.phase import Phase as Phase
from shoal.rounds.phase import Shown
from shoal.rounds.record import RoundRecord
from shoal.rounds.setback import rebase, set_back

RETRY_AFTER = devices.RETRY_AFTER


@dataclass(slots=True)
class TaskState:
    """One task: its versions, and the round in progress.

    `changes` grows with every event that changed the state; a driver makes those events durable and no others (a
    check-in that yields no assignment is none). `receipts` are those of the round in progress and `former` those of
    the one before; a driver finds older ones in its store. `turns` counts the assignments of a buffered round by
    device. The round hands work out from `opens` on; `served` says which devices rest since when.
    `heads` say which versions devices serve.
    `paused` is when the task was paused, `judged` the version from which early stopping counts.
    """

    task: str
    spec: TaskSpec
    phase: Phase
    round: int
    attempt: int
    opened: float | None
    versions: list[ModelVersion]
    records: list[RoundRecord] = field(default_factory=list[RoundRecord])
    roster: Roster = field(default_factory=Roster)
    buffer: list[Counted] = field(default_factory=list[Counted])
    folding: int = 0
    turns: dict[str, int] = field(default_factory=dict[str, int])
    receipts: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    former: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    paused: float | None = None
    judged: int = 0
    reason: str = ""
    changes: int = 1
    owners: dict[str, Origin] = field(default_factory=dict[str, Origin])
    opens: float = 0.0
    served: dict[str, float] = field(default_factory=dict[str, float])
    heads: Heads = field(default_factory=Heads)

    @classmethod
    def begin(cls, event: Published, now: float) -> "TaskState":
        """Open round 1 of a task that was just published."""
        initial = ModelVersion(0, event.spec.initial, "", now)
        state = cls(event.task, event.spec, Phase.COLLECTING, 1, 1, None, [initial])
        state.opens = schedule.first_opening(event.spec.schedule, now)
        state.records.append(course.new_record(state, now))
        return state

    @property
    def latest(self) -> ModelVersion:
        """The newest version."""
        return self.versions[-1]

    @property
    def shown(self) -> Shown:
        """The phase as people see it: a task that rests is paused, whatever its round does."""
        return "paused" if self.paused is not None and not self.phase.over else self.phase.value

    @property
    def base(self) -> ModelVersion:
        """The version that the round in progress starts from: the newest one, unless people went back to another."""
        return self.latest if self.heads.training is None else self.versions[self.heads.training]

    @property
    def leases(self) -> dict[str, Lease]:
        """The devices' parts, by device."""
        return self.roster.held

    @property
    def record(self) -> RoundRecord:
        """What happened so far in the attempt in progress."""
        return self.records[-1]

    @property
    def reports(self) -> int:
        """How many updates the round in progress counts."""
        return self.folding if self.phase is Phase.COMMITTING else len(self.buffer)

    @property
    def deadline(self) -> float:
        """When the round in progress closes at the latest: counted from its first device, infinite before."""
        return math.inf if self.opened is None else self.opened + self.spec.plan.deadline

    @property
    def destination(self) -> int:
        """The number of the version that the next accepted update helps to make."""
        if self.phase is not Phase.COMMITTING:
            return self.round
        return self.round + 1 + (len(self.buffer) - self.folding) // self.spec.plan.goal

    def moment(self, now: float) -> float:
        """Return the time as the round sees it: it stands still while the task is paused."""
        return now if self.paused is None else self.paused

    def lease(self, assignment: str, device: str) -> Lease | None:
        """Return a device's part if it is this assignment."""
        lease = self.roster.get(device)
        return lease if lease is not None and lease.assignment.id == assignment else None

    def receipt(self, assignment: str) -> Receipt | None:
        """Return the receipt of an update that was accepted in this round or the one before."""
        return self.receipts.get(assignment) or self.former.get(assignment)

    def remembers(self, assignment: str, device: str) -> bool:
        """Whether a message about this assignment of this device has an answer here."""
        return self.lease(assignment, device) is not None or self.receipt(assignment) is not None

    def expects(self, assignment: str, device: str, now: float) -> bool:
        """Whether a report of this assignment would be accepted, so that its bytes are worth sending."""
        lease = self.lease(assignment, device)
        return lease is not None and devices.takes(self, lease, now)

    def wants(self, event: CheckedIn, now: float) -> bool:
        """Whether a device that checks in would get work; nothing changes."""
        return devices.wants(self, event, now)

    def turned_away(self, event: CheckedIn, now: float) -> Wait | None:
        """Return what a device that checks in is told when it gets no work, None when it gets some.

        Nothing changes; None as well when the clock was set back, of which `handle` has to know.
        """
        return None if self.opened is not None and now < self.opened else devices.turned_away(self, event, now)

    def free(self, now: float) -> int:
        """Return for how many more devices there is work."""
        return devices.free(self, now)

    def next_timer(self) -> float | None:
        """Return the earliest time at which `Ticked` would change something, or None."""
        if self.phase is not Phase.COLLECTING or self.opened is None or self.paused is not None:
            return None
        return min(self.deadline, self.roster.next_expiry())

    def due(self, now: float) -> bool:
        """Whether `Ticked` would change something now: a timer is over, or the clock was set back."""
        timer = self.next_timer()
        return timer is not None and (timer <= now or set_back(self, now))

    def pending(self) -> list[Effect]:
        """Return what a driver that just loaded this state must do: finish the fold that a crash interrupted."""
        return [course.fold(self)] if self.phase is Phase.COMMITTING else []

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return what must happen because of it."""
        if self.opened is not None and now < self.opened and not isinstance(event, Reported):
            # a report that is refused must leave no trace: stores take every Reported for an accepted one
            rebase(self, now)
        match event:
            case CheckedIn():
                return devices.check_in(self, event, now)
            case Reported():
                return devices.report(self, event, now)
            case Renewed():
                return devices.renew(self, event, now)
            case Released():
                return devices.release(self, event)
            case Extended():
                return people.extend(self, event.rounds, now)
            case Promoted() | RolledBack() | CanaryBegan() | GuardPublished() | Guarded() | Noted() | Unfit():
                return promotion.happened(self, event, now)
            case Rewound():
                return people.rewind(self, event, now)
            case _ if self.phase.over:
                return []
            case Rejected():
                return devices.reject(self, event)
            case Late():
                return devices.late(self, event, now)
            case Committed():
                return course.commit(self, event, now)
            case Failed():
                return course.fail(self, event, now)
            case Ticked():
                return course.tick(self, now)
            case Paused():
                return people.pause(self, now)
            case Resumed():
                return people.resume(self, now)
            case Cancelled():
                return course.end(self, Phase.CANCELLED, event.reason, now)
            case _:
                return []
