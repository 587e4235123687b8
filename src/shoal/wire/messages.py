"""What travels between a coordinator and those who call it, as plain data in JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import msgspec

from shoal.core.errors import BadRequest
from shoal.core.origin import Origin
from shoal.core.receipt import Receipt
from shoal.core.serving import Canary
from shoal.core.task import Kind
from shoal.core.types import Assignment, Costs, ModelVersion
from shoal.core.value import value
from shoal.rounds.heads import Note, Refusal, Step
from shoal.rounds.phase import Shown

PROTOCOL = 1
"""Version of the protocol; a coordinator refuses calls of another one with 426."""

MAX_MESSAGE = 1 << 20
"""Largest JSON message in bytes."""

MAX_WAIT = 30.0
"""Longest time in seconds for which a coordinator holds a long-polling request."""

HELD = "Shoal-Held"
"""Response header: seconds for which the server held the request on purpose."""

SPOKEN = "Shoal-Protocol"
"""Request header: the version of the protocol that the caller speaks."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Greeting:
    """The part of a message that no version of the protocol changes: which version the rest is in."""

    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """A device asks to join: its unique name, and its public key in base64 in the form that its type has."""

    name: str
    public_key: str
    protocol: int = PROTOCOL
    key_type: str = "ed25519"


@dataclass(frozen=True, slots=True)
class EnrolReply:
    """The device's id, under which it signs, and the names of the tasks that it is for, () for all."""

    device: str
    scope: tuple[str, ...] = ()


@value
class CheckInRequest:
    """A device offers to work: the names of the tasks it has code for, and what beside updates it releases."""

    training: tuple[str, ...] = ()
    statistics: bool = False
    wait: float = 0.0
    # seconds by which the device's own time is ahead of UTC
    utc_offset: float = 0.0
    protocol: int = PROTOCOL
    evaluation: bool = False


@value
class HeadsHere:
    """The version of a task that a device serves, and the one that rounds train from: numbers and digests."""

    task: str
    serves: int
    serves_digest: str
    trains: int
    trains_digest: str


@value
class CheckInReply:
    """An assignment with its lease in seconds, or none and when to ask again."""

    assignment: Assignment | None
    lease: float
    retry_after: float
    reason: str
    server_time: float
    # of each task that the device has code for
    versions: tuple[HeadsHere, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportHead:
    """What stands before the arrays of a report; `digest` is the SHA-256 of the arrays' bytes, `size` their number.

    `origin` comes with a device's first report to a task. `uploaded` says that the arrays do not follow: they were
    uploaded before, in parts.
    """

    digest: str
    size: int
    weight: int
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    costs: Costs = Costs()
    origin: Origin | None = None
    uploaded: bool = False


@dataclass(frozen=True, slots=True)
class KeyReply:
    """The raw Ed25519 public key, in base64, of the key with which a coordinator signs receipts."""

    public_key: str


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A device gives an assignment back, and says why; `again` if it would take it once more in the same round."""

    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class RenewReply:
    """Until when the lease was extended, in seconds since 1970 by the server's clock."""

    until: float


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A person ends a task, and says why."""

    reason: str = "cancelled by its researcher"


@dataclass(frozen=True, slots=True)
class ExtendRequest:
    """A person lets a task have so many rounds altogether: asking twice does not extend it twice."""

    rounds: int


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Where a task stands. `reports` and `goal` are those of the round in progress.

    `refusals` says, by device name, why work of this round was given back or not taken; `owners` who took part so far.
    """

    id: str
    name: str
    kind: Kind
    phase: Shown
    round: int
    rounds: int
    attempt: int
    reports: int
    goal: int
    devices: tuple[str, ...]
    reason: str
    latest: ModelVersion
    refusals: Mapping[str, str] = field(default_factory=dict[str, str])
    owners: Mapping[str, Origin] = field(default_factory=dict[str, Origin])

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.phase in ("finished", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class VersionsReply:
    """The versions that the caller has not seen, and where the task stands."""

    versions: tuple[ModelVersion, ...]
    status: TaskStatus


@dataclass(frozen=True, slots=True)
class LatestReply:
    """The id of a task, the version of its model that the caller serves, and the one that rounds train from."""

    task: str
    version: ModelVersion
    training: ModelVersion


Standing: TypeAlias = Literal["", "served", "candidate", "rolled back"]


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A version with its lineage: the number of its parent, the round that made it, and what became of it."""

    version: ModelVersion
    round: int
    parent: int | None
    standing: Standing
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadsReply:
    """Where a task's heads stand: the version that rounds train from, the one that is served, and the one on trial.

    While `held`, nothing is promoted but by a person. `steps` is what happened to versions, oldest first, `refusals`
    which devices keep another version because that one does not work there, and why.
    """

    task: str
    training: int
    serving: int
    candidate: int | None
    held: bool
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class PromoteRequest:
    """A person lets devices serve a version, by default the newest; at first a part of them, if there is a canary."""

    number: int | None = None
    canary: Canary | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RollBackRequest:
    """A person takes back the candidate or, without one, the version that is served: `to` an earlier one."""

    to: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RewindRequest:
    """A person lets rounds go on from an older version."""

    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NoteRequest:
    """A person writes something down about a version."""

    text: str


@dataclass(frozen=True, slots=True)
class UnfitRequest:
    """A device keeps the version that it has, because this one does not work there."""

    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One device, enrolled or waiting; `id` comes from its key, `scope` names the tasks it is for, () for all.

    `assigned`, `accepted` and `refused` count its parts in rounds since the coordinator started, `bytes_up` and
    `bytes_down` sum what it measured for them; `runtime` is what it says that it trains with.
    """

    id: str
    name: str
    enrolled: float | None
    last_seen: float | None
    revoked: float | None
    state: Literal["enrolled", "revoked", "pending", "refused"] = "enrolled"
    scope: tuple[str, ...] = ()
    assigned: int = 0
    accepted: int = 0
    refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class ApproveRequest:
    """A person lets a device in that waits, for the tasks named in `scope`, () for all.

    With `id` only the device with that key: names can be taken by anybody who asks.
    """

    scope: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A person asks for a token: whose role it gives, until when (seconds from now), for how many devices and tasks."""

    role: Literal["admin", "researcher", "owner", "viewer", "enrolment"]
    expires_in: float | None = None
    uses: int | None = None
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """One token; the token itself is in `token` only where it was just made."""

    id: str
    role: Literal["admin", "researcher", "owner", "viewer", "enrolment"]
    created: float
    expires: float | None
    uses: int | None
    used: int
    scope: tuple[str, ...]
    revoked: float | None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Pins:
    """The versions of a task that stay, whatever else is removed."""

    task: str
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BlobReply:
    """The digest under which a blob was kept."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Health:
    """That the coordinator serves, which versions it speaks, and its time (seconds since 1970)."""

    status: str
    version: str
    protocol: int
    server_time: float


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error as it travels: its class in core.errors by code, what is wrong with which value, and the way out."""

    code: str
    problem: str
    fix: str
    server_time: float
    receipt: Receipt | None = None


Message: TypeAlias = object


def encode(message: Message) -> bytes:
    """Return a message as JSON."""
    return msgspec.json.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """Read a message of a known kind. Raises BadRequest, naming the field that is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"{kind.__name__} cannot be read ({error})", "send JSON as in /openapi.json") from error
