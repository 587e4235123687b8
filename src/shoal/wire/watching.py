"""What dashboards read: who is signed in, where every task stands as it happens, and what happened to a task."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from shoal.core.errors import TooLarge
from shoal.core.task import Kind
from shoal.core.types import ModelVersion
from shoal.rounds.phase import Shown
from shoal.rounds.record import RoundRecord

Role: TypeAlias = Literal["admin", "researcher", "owner", "viewer"]

MAX_FRAME = 4 << 20
"""Largest frame of a stream of events in bytes."""


@dataclass(frozen=True, slots=True)
class SignInRequest:
    """A person shows an API token, to be known by a cookie from then on."""

    token: str


@dataclass(frozen=True, slots=True)
class SessionReply:
    """Whose role the caller has, and until when (seconds since 1970; None without an end)."""

    role: Role
    expires: float | None


@dataclass(frozen=True, slots=True)
class Hello:
    """What a stream of events begins with: the ids of all tasks, oldest first, and of the server what a page shows."""

    server_time: float
    version: str
    role: Role
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One device's part in the round in progress; `state` is that of its lease, `reason` why it will not report."""

    device: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TaskView:
    """Where a task stands, whole: a reader needs the newest view of each task and no other.

    `states` counts the parts in the round by the state of their leases, `parts` holds some of them, those that need
    a look first. Times are seconds since 1970: `deadline` is None before the round's first device.
    """

    id: str
    name: str
    kind: Kind
    phase: Shown
    round: int
    rounds: int
    attempt: int
    goal: int
    reports: int
    buffered: bool
    reason: str
    published: float
    opens: float
    deadline: float | None
    latest: ModelVersion
    serving: int
    candidate: int | None
    record: RoundRecord
    states: Mapping[str, int]
    parts: tuple[Part, ...]
    server_time: float


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event of a task's stream: its position, when it happened (seconds since 1970), its kind and its fields."""

    position: int
    at: float
    kind: str
    event: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class LogReply:
    """Events of a task, newest first, and how many there are in all."""

    entries: tuple[LogEntry, ...]
    length: int


def frames(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Read a stream of server-sent events: (name, data) of each; comments are passed over. Raises TooLarge."""
    waiting = b""
    for piece in pieces:
        *whole, waiting = (waiting + piece).split(b"\n\n")
        for frame in whole:
            lines = [line.partition(b": ") for line in frame.split(b"\n")]
            fields = {name: value for name, _, value in lines if name}
            if b"event" in fields and b"data" in fields:
                yield fields[b"event"].decode(errors="replace"), fields[b"data"]
        if len(waiting) > MAX_FRAME:
            raise TooLarge(f"an event of more than {MAX_FRAME} bytes", "is the address a Shoal coordinator's?")
