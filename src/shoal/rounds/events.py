"""What happened to a task. Events carry digests, never arrays; a task's stream of events is the truth about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from shoal.core.origin import Origin
from shoal.core.task import TaskSpec
from shoal.core.types import Costs


@dataclass(frozen=True, slots=True)
class Published:
    """A researcher published the task: the first event of its stream."""

    task: str
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class CheckedIn:
    """A device offers to work; its own time is `utc_offset` seconds ahead of UTC."""

    device: str
    utc_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Renewed:
    """A device makes progress and keeps its place for another lease."""

    assignment: str
    device: str


@dataclass(frozen=True, slots=True)
class Released:
    """A device gives its place back, and says why."""

    assignment: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
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
    | Ticked
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it stands in a stream: what happened, and when (seconds since 1970)."""

    at: float
    event: Event
