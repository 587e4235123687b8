"""What a coordinator keeps: streams of events with the small updates that came with them, and identities."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from shoal.core.receipt import Receipt
from shoal.rounds.events import Recorded

PersonRole: TypeAlias = Literal["admin", "researcher", "owner", "viewer"]
Purpose: TypeAlias = PersonRole | Literal["enrolment"]


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One enrolled device: its key, raw and in base64, and the names of the tasks that it is for, () for all."""

    id: str
    name: str
    public_key: str
    enrolled: float
    revoked: float | None = None
    key_type: Literal["ed25519", "p-256"] = "ed25519"
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One token, of which only the hash is kept: `purpose` is a person's role, or "enrolment" for devices that join.

    An enrolment token lets `uses` devices join (None: any number), `used` did, each for the tasks named in `scope`.
    """

    hash: str
    purpose: Purpose
    created: float
    expires: float | None = None
    uses: int | None = None
    used: int = 0
    scope: tuple[str, ...] = ()
    revoked: float | None = None

    @property
    def id(self) -> str:
        """What people call it by: it tells nothing about the token itself."""
        return self.hash[:12]


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that are kept: their digest, how many, and since when (seconds since 1970)."""

    digest: str
    size: int
    since: float


@dataclass(frozen=True, slots=True)
class Entry:
    """What one append adds to a stream: events, and the bytes of small updates by digest, made durable together."""

    stream: str
    events: Sequence[Recorded]
    expect: int
    epoch: int
    inline: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


class Store(Protocol):
    """Streams of events, appended all or nothing; `shoal.testing.laws.store_laws` states what must hold.

    Positions count from 1: a stream with n events has position n, an empty one 0. Writers lead a stream by epoch:
    `lead` returns a new one, and appends under an older epoch raise StreamConflict. A stream accepts an assignment
    once (Reported) and commits a round once (Committed): a second of either raises StreamConflict too.
    """

    def lead(self, stream: str) -> int:
        """Take over a stream for writing and return the new epoch."""
        ...

    def lead_every(self) -> dict[str, int]:
        """Take over every stream that has events, at once; return the new epochs, in the order of `streams`."""
        ...

    def submit(self, entry: Entry) -> Future[int]:
        """Append in the background, in groups; the result is the stream's new position, once durable.

        The future raises StreamConflict when the stream is not at `expect` or has another leader, StorageFull when
        the disk is.
        """
        ...

    def append(self, stream: str, events: Sequence[Recorded], *, expect: int, epoch: int) -> int:
        """Append and wait until durable; `submit` without the future."""
        ...

    def events(self, stream: str, after: int = 0) -> Iterator[tuple[int, Recorded]]:
        """Yield (position, event) of everything after a position."""
        ...

    def streams(self) -> list[str]:
        """Return the names of all streams, in the order of their first events."""
        ...

    def snapshot(self, stream: str) -> tuple[int, bytes] | None:
        """Return the newest snapshot and the position it stands for."""
        ...

    def save_snapshot(self, stream: str, position: int, data: bytes) -> None:
        """Keep a snapshot, unless a newer one is there; older ones may go.

        Raises StreamConflict when the stream does not reach to `position`.
        """
        ...

    def inline(self, digest: str) -> bytes | None:
        """Return the bytes of a small update that came with an event, or None."""
        ...

    def accepted(self, stream: str, assignment: str, device: str) -> Receipt | None:
        """Return the receipt of an update of this device that a stream accepted, however long ago, or None."""
        ...

    def discard(self, digests: Sequence[str]) -> None:
        """Forget the bytes of small updates; unknown digests are ignored.

        Equal bytes are kept once, whoever brought them: ask only for what no other stream still needs.
        """
        ...

    def inline_stored(self) -> Sequence[Stored]:
        """Return what there is of small updates, `since` their last acceptance (0 when none was)."""
        ...

    def pin(self, stream: str, number: int, pinned: bool = True) -> None:
        """Mark a version as one that is kept, or take the mark away; doing either again changes nothing."""
        ...

    def pins(self) -> Sequence[tuple[str, int]]:
        """Return every version that is marked, as (stream, number)."""
        ...

    def saw(self, seen: Mapping[str, float]) -> None:
        """Keep when devices (by name) called last; unknown names are ignored."""
        ...

    def seen(self) -> Mapping[str, float]:
        """Return when devices (by name) called last; those that never did are left out."""
        ...

    def enrol(self, device: DeviceRecord, token: str | None) -> DeviceRecord:
        """Keep a device and count a use of a token (by hash), both or neither; return what is kept.

        A known name with the same key is returned as it is, and no use is counted, so that a lost reply can be asked
        for again. Raises Conflict when the name is taken by another public key, or the id by another name;
        Unauthorised when the token is not known, revoked, expired when the device enrols, or used up.
        """
        ...

    def devices(self) -> list[DeviceRecord]:
        """Return every device, oldest first."""
        ...

    def revoke_device(self, device: str, at: float) -> None:
        """Mark a device (by id) as revoked. Raises NotFound."""
        ...

    def refuse(self, device: DeviceRecord) -> None:
        """Note that a device that is not enrolled was turned away, at `enrolled`; enrolling it takes that back."""
        ...

    def refused(self) -> Sequence[DeviceRecord]:
        """Return every device that was turned away, oldest first."""
        ...

    def add_token(self, token: TokenRecord) -> None:
        """Keep a token's hash. Raises Conflict when it is kept already, with another purpose or time."""
        ...

    def revoke_token(self, token: str, at: float) -> None:
        """Mark a token (by hash) as revoked. Raises NotFound."""
        ...

    def tokens(self) -> list[TokenRecord]:
        """Return every token, oldest first."""
        ...

    def secret(self, name: str, value: bytes) -> bytes:
        """Keep bytes under a name where there are none yet; return what is kept, whoever was first."""
        ...

    def close(self) -> None:
        """Finish what was submitted and close; whatever is submitted later fails with StoreError."""
        ...


class BlobWriter(Protocol):
    """Receives one blob in pieces; nothing is visible before `commit`."""

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next piece. Raises StorageFull."""
        ...

    def commit(self) -> str:
        """Make the blob durable and visible; return its SHA-256 in hexadecimal."""
        ...

    def abort(self) -> None:
        """Throw the pieces away; harmless after commit."""
        ...


Namespace: TypeAlias = Literal["published", "updates"]


class Blobs(Protocol):
    """Immutable bytes by SHA-256: "published" for models and plans, "updates" until their version is committed."""

    def writer(self, namespace: Namespace) -> BlobWriter:
        """Start a blob."""
        ...

    def open(self, digest: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes [start, stop) in pieces. Raises NotFound."""
        ...

    def size(self, digest: str) -> int:
        """Return the number of bytes. Raises NotFound."""
        ...

    def namespace(self, digest: str) -> Namespace:
        """Return where a blob lies. Raises NotFound."""
        ...

    def stored(self, namespace: Namespace) -> Iterator[Stored]:
        """Yield every blob of a namespace; one that goes meanwhile may be left out."""
        ...

    def delete(self, digest: str) -> None:
        """Remove a blob, the copy in "updates" before the one in "published"; an unknown digest is ignored."""
        ...
