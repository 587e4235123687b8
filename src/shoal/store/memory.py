"""Store and blobs in memory: for tests, notebooks and simulations. Nothing outlives the process."""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from shoal.core.errors import ShoalError, StoreError
from shoal.core.receipt import Receipt
from shoal.rounds.events import Recorded, Reported
from shoal.store.rules import (
    check_head,
    check_once,
    check_snapshot,
    device_conflict,
    no_blob,
    no_device,
    no_token,
    once,
    same_device,
    token_conflict,
    unusable,
)
from shoal.store.store import DeviceRecord, Entry, Namespace, Stored, TokenRecord


@dataclass(slots=True)
class _Stream:
    epoch: int = 0
    events: list[Recorded] = field(default_factory=list[Recorded])
    accepted: dict[str, tuple[str, Receipt]] = field(default_factory=dict[str, tuple[str, Receipt]])
    rounds: set[int] = field(default_factory=set[int])
    snapshot: tuple[int, bytes] | None = None


class MemoryStore:
    """A Store in dictionaries under one lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._streams: dict[str, _Stream] = {}
        self._order: list[str] = []
        self._inline: dict[str, bytes] = {}
        self._devices: dict[str, DeviceRecord] = {}
        self._tokens: dict[str, TokenRecord] = {}
        self._refused: dict[str, DeviceRecord] = {}
        self._secrets: dict[str, bytes] = {}
        self._pins: set[tuple[str, int]] = set()
        self._seen: dict[str, float] = {}
        self._closed = False

    def lead(self, stream: str) -> int:
        """Take over a stream for writing and return the new epoch."""
        with self._lock:
            led = self._streams.setdefault(stream, _Stream())
            led.epoch += 1
            return led.epoch

    def lead_every(self) -> dict[str, int]:
        """Take over every stream that has events; return the new epochs, in the order of `streams`."""
        return {stream: self.lead(stream) for stream in self.streams()}

    def submit(self, entry: Entry) -> Future[int]:
        """Append at once; the future is done when it is returned."""
        future: Future[int] = Future()
        try:
            future.set_result(self._append(entry))
        except ShoalError as error:
            future.set_exception(error)
        return future

    def append(self, stream: str, events: Sequence[Recorded], *, expect: int, epoch: int) -> int:
        """Append and return the stream's new position."""
        return self._append(Entry(stream, events, expect, epoch))

    def _append(self, entry: Entry) -> int:
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed", "open it again")
            stream = self._streams.get(entry.stream, _Stream())
            check_head(entry, len(stream.events), stream.epoch)
            check_once(entry.stream, entry.events, stream.accepted.keys(), stream.rounds)
            if entry.events and not stream.events:
                self._order.append(entry.stream)
            self._streams[entry.stream] = stream
            stream.events.extend(entry.events)
            for record in entry.events:
                if isinstance(event := record.event, Reported):
                    receipt = Receipt(event.assignment, event.digest, record.at)
                    stream.accepted[event.assignment] = (event.device, receipt)
            stream.rounds.update(once(entry.events)[1])
            self._inline.update(entry.inline)
            return len(stream.events)

    def events(self, stream: str, after: int = 0) -> Iterator[tuple[int, Recorded]]:
        """Yield (position, event) of everything after a position."""
        with self._lock:
            kept = self._streams.get(stream, _Stream()).events[after:]
        yield from enumerate(kept, after + 1)

    def streams(self) -> list[str]:
        """Return the names of all streams, in the order of their first events."""
        with self._lock:
            return list(self._order)

    def snapshot(self, stream: str) -> tuple[int, bytes] | None:
        """Return the newest snapshot and the position it stands for."""
        with self._lock:
            return self._streams.get(stream, _Stream()).snapshot

    def save_snapshot(self, stream: str, position: int, data: bytes) -> None:
        """Keep a snapshot, unless a newer one is there."""
        with self._lock:
            kept = self._streams.setdefault(stream, _Stream())
            check_snapshot(stream, position, len(kept.events))
            if kept.snapshot is None or kept.snapshot[0] <= position:
                kept.snapshot = (position, data)

    def inline(self, digest: str) -> bytes | None:
        """Return the bytes of a small update, or None."""
        with self._lock:
            return self._inline.get(digest)

    def accepted(self, stream: str, assignment: str, device: str) -> Receipt | None:
        """Return the receipt of an update that a stream accepted, or None."""
        with self._lock:
            known = self._streams.get(stream, _Stream()).accepted.get(assignment)
        return known[1] if known is not None and known[0] == device else None

    def discard(self, digests: Sequence[str]) -> None:
        """Forget the bytes of small updates; unknown digests are ignored."""
        with self._lock:
            for digest in digests:
                self._inline.pop(digest, None)

    def inline_stored(self) -> list[Stored]:
        """Return what there is of small updates, without their bytes."""
        with self._lock:
            records = [record for stream in self._streams.values() for record in stream.events]
            reports = [(r.event.digest, r.at) for r in records if isinstance(r.event, Reported)]
            since = dict(sorted(reports, key=lambda report: report[1]))
            return [Stored(digest, len(data), since.get(digest, 0.0)) for digest, data in self._inline.items()]

    def pin(self, stream: str, number: int, pinned: bool = True) -> None:
        """Mark a version as one that is kept, or take the mark away."""
        with self._lock:
            (self._pins.add if pinned else self._pins.discard)((stream, number))

    def pins(self) -> list[tuple[str, int]]:
        """Return every version that is marked, as (stream, number)."""
        with self._lock:
            return sorted(self._pins)

    def saw(self, seen: Mapping[str, float]) -> None:
        """Keep when devices (by name) called last."""
        with self._lock:
            self._seen.update({name: at for name, at in seen.items() if name in self._devices})

    def seen(self) -> dict[str, float]:
        """Return when devices (by name) called last."""
        with self._lock:
            return dict(self._seen)

    def enrol(self, device: DeviceRecord, token: str | None) -> DeviceRecord:
        """Keep a device and count a use of a token. Raises Conflict, Unauthorised."""
        with self._lock:
            known = self._devices.get(device.name)
            if any(other.id == device.id and other.name != device.name for other in self._devices.values()):
                raise device_conflict(device)
            if known is not None:
                return same_device(known, device)
            if token is not None:
                self._count(token, device.enrolled)
            self._devices[device.name] = device
            self._refused.pop(device.id, None)
            return device

    def refuse(self, device: DeviceRecord) -> None:
        """Note that a device was turned away."""
        with self._lock:
            self._refused[device.id] = device

    def refused(self) -> list[DeviceRecord]:
        """Return every device that was turned away, oldest first."""
        with self._lock:
            return sorted(self._refused.values(), key=lambda device: (device.enrolled, device.id))

    def _count(self, token: str, now: float) -> None:
        found = self._tokens.get(token)
        refusal = unusable(found, now)
        if refusal is not None:
            raise refusal
        assert found is not None
        self._tokens[token] = replace(found, used=found.used + 1)

    def devices(self) -> list[DeviceRecord]:
        """Return every device, oldest first."""
        with self._lock:
            return list(self._devices.values())

    def revoke_device(self, device: str, at: float) -> None:
        """Mark a device (by id) as revoked. Raises NotFound."""
        with self._lock:
            for name, known in self._devices.items():
                if known.id == device:
                    self._devices[name] = replace(known, revoked=at)
                    return
        raise no_device(device)

    def add_token(self, token: TokenRecord) -> None:
        """Keep a token's hash. Raises Conflict when it is kept already, for something else."""
        with self._lock:
            if self._tokens.setdefault(token.hash, token) != token:
                raise token_conflict(token)

    def revoke_token(self, token: str, at: float) -> None:
        """Mark a token (by hash) as revoked. Raises NotFound."""
        with self._lock:
            if token not in self._tokens:
                raise no_token(token)
            self._tokens[token] = replace(self._tokens[token], revoked=at)

    def tokens(self) -> list[TokenRecord]:
        """Return every token, oldest first."""
        with self._lock:
            return list(self._tokens.values())

    def secret(self, name: str, value: bytes) -> bytes:
        """Keep bytes under a name where there are none yet; return what is kept."""
        with self._lock:
            return self._secrets.setdefault(name, value)

    def close(self) -> None:
        """Take no more events."""
        with self._lock:
            self._closed = True


class MemoryBlobs:
    """Blobs in dictionaries, one a namespace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Namespace, dict[str, bytes]] = {"published": {}, "updates": {}}

    def writer(self, namespace: Namespace) -> "MemoryBlobWriter":
        """Start a blob."""
        return MemoryBlobWriter(self._lock, self._kept[namespace])

    def open(self, digest: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return the bytes [start, stop) as one piece. Raises NotFound."""
        piece = self._find(digest)[1][start:stop]
        return iter([piece] if piece else [])

    def size(self, digest: str) -> int:
        """Return the number of bytes. Raises NotFound."""
        return len(self._find(digest)[1])

    def namespace(self, digest: str) -> Namespace:
        """Return where a blob lies. Raises NotFound."""
        return self._find(digest)[0]

    def _find(self, digest: str) -> tuple[Namespace, bytes]:
        with self._lock:
            for namespace, kept in self._kept.items():
                if digest in kept:
                    return namespace, kept[digest]
        raise no_blob(digest)

    def stored(self, namespace: Namespace) -> Iterator[Stored]:
        """Yield every blob of a namespace, as kept since 1970: memory keeps no times."""
        with self._lock:
            kept = dict(self._kept[namespace])
        return (Stored(digest, len(data), 0.0) for digest, data in kept.items())

    def delete(self, digest: str) -> None:
        """Remove a blob, first as an update, then as published; an unknown digest is ignored."""
        with self._lock:
            if self._kept["updates"].pop(digest, None) is None:
                self._kept["published"].pop(digest, None)


class MemoryBlobWriter:
    """Collects the pieces of one blob."""

    def __init__(self, lock: threading.Lock, kept: dict[str, bytes]) -> None:
        self._lock = lock
        self._into = kept
        self._pieces = bytearray()

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next piece."""
        self._pieces += chunk

    def commit(self) -> str:
        """Make the blob visible and return its SHA-256."""
        data = bytes(self._pieces)
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            self._into[digest] = data
        return digest

    def abort(self) -> None:
        """Throw the pieces away."""
        self._pieces.clear()
