"""What happened to a task. Events carry digests, never arrays; a task's stream of events is the truth about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from shoal.core.origin import Origin
from shoal.core.serving import Canary
from shoal.core.task import TaskSpec
from shoal.core.types import Costs
from shoal.core.value import value


@dataclass(frozen=True, slots=True)
class Published:
    """A researcher published the task: the first event of its stream."""

    task: str
    spec: TaskSpec


@value
class CheckedIn:
    """A device offers to work; its own time is `utc_offset` seconds ahead of UTC.

    `elsewhere` is when it last got work of another task, in seconds since 1970, where this matters.
    """

    device: str
    utc_offset: float = 0.0
    elsewhere: float | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    """A device makes progress and keeps its place for another lease."""

    assignment: str
    device: str


@dataclass(frozen=True, slots=True)
class Released:
    """A device gives its place back, and says why; `again` if it may be asked once more in this round."""

    assignment: str
    device: str
    reason: str
    again: bool = False


@value
class Reported:
    """A device's update arrived, passed its checks and is durable with this event; `origin` is its own word."""

    assignment: str
    device: str
    digest: str
    size: int
    weight: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    costs: Costs = Costs()
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A device's update is not what the task asks for; `code` and `reason` say why."""

    assignment: str
    device: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Late:
    """A device's update was turned away because its round no longer takes it."""

    assignment: str
    device: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The driver combined a round's updates: the digest of the new version and of the optimizer's state."""

    round: int
    attempt: int
    digest: str
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The driver could not combine a round's updates."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A person ended the task."""

    reason: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A person let the task rest: nobody gets work, and time stands still for its round."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A person let the task go on."""


@dataclass(frozen=True, slots=True)
class Extended:
    """A person wants the task to have `rounds` rounds altogether, which may be after it finished."""

    rounds: int


@dataclass(frozen=True, slots=True)
class Promoted:
    """A version becomes the one that devices serve; `by` is a person, or the guard of its canary."""

    number: int
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Version `number`, the candidate or the one that is served, is served no more, but `to`."""

    number: int
    to: int
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CanaryBegan:
    """A part of the devices serves a version, to try it."""

    number: int
    canary: Canary
    by: str


@dataclass(frozen=True, slots=True)
class GuardPublished:
    """The evaluation that measures the candidate is published, as task `task`."""

    number: int
    task: str


@dataclass(frozen=True, slots=True)
class Guarded:
    """The candidate was measured, and the version that is served on the same rows; or it was not, and why."""

    number: int
    candidate: float
    head: float
    rows: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rewound:
    """Rounds go on from an older version: the next one that they make has it as its parent."""

    number: int
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """A person writes something down about a version."""

    number: int
    text: str
    by: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """A device found that a version does not work there."""

    number: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed."""


Event: TypeAlias = (
    Published
    | CheckedIn
    | Renewed
    | Released
    | Reported
    | Rejected
    | Late
    | Committed
    | Failed
    | Cancelled
    | Paused
    | Resumed
    | Extended
    | Promoted
    | RolledBack
    | Rewound
    | CanaryBegan
    | GuardPublished
    | Guarded
    | Noted
    | Unfit
    | Ticked
)


@value
class Recorded:
    """An event as it stands in a stream: what happened, and when (seconds since 1970)."""

    at: float
    event: Event
