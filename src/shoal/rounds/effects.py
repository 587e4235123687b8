"""What must be done because of an event. A driver carries effects out; the state machine only asks."""

from dataclasses import dataclass
from typing import TypeAlias

from shoal.core.receipt import Receipt
from shoal.core.types import Assignment, ModelVersion
from shoal.core.value import value


@value
class Assign:
    """Send this assignment to its device."""

    assignment: Assignment
    lease: float


@value
class Wait:
    """There is nothing to do for this device now; it may ask again after `retry_after` seconds."""

    device: str
    reason: str
    retry_after: float


@value
class Accept:
    """The update counts: give its device this receipt, once event and bytes are durable."""

    receipt: Receipt


@value
class Refuse:
    """Turn the message away: `code` is that of an error in core.errors."""

    assignment: str
    code: str
    problem: str
    fix: str
    receipt: Receipt | None = None


@value
class Extend:
    """A lease was extended until `until`."""

    assignment: str
    until: float


@value
class Contribution:
    """One accepted update of a round, by digest."""

    assignment: str
    digest: str
    weight: int


@dataclass(frozen=True, slots=True)
class Fold:
    """Combine these updates with version `base` into the next one, then say Committed (or Failed).

    `share` of the combined change is taken: below 1 when stale updates were damped. `start` is the digest of the
    version that the one update of a task that mixes models started from, when it is not `base`.
    """

    round: int
    attempt: int
    base: ModelVersion
    contributions: tuple[Contribution, ...]
    share: float = 1.0
    start: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """A new version exists."""

    version: ModelVersion


@dataclass(frozen=True, slots=True)
class Abandon:
    """A round ended without a version; the model has not moved."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Open:
    """A round takes devices from now on."""

    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Discard:
    """The bytes of these updates are no longer needed, by digest."""

    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Serve:
    """Which versions devices serve changed, or is about to: version `number` because of `why`."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class End:
    """The task is over: "finished", "failed" or "cancelled"."""

    phase: str
    reason: str


Effect: TypeAlias = Assign | Wait | Accept | Refuse | Extend | Fold | Publish | Abandon | Open | Discard | Serve | End
