"""An owner's folder: who the device is, what it still has to send, and a log of everything that left.

device.json      name, coordinator and private key, which is sealed where there is a seal (mode 0600)
outbox/          reports that have no receipt yet, each durable before its first byte is sent
releases.jsonl   one line for each release and each refusal, durable before anything is sent
receipts.jsonl   the receipt of each release that was acknowledged, as the coordinator signed it
blobs/           bytes of tasks that never change, by digest
versions/        the newest version of a large model
states/          what stays here of each task from round to round (`agent.client_state`)
lock             held by the one agent that uses the folder
"""

import fcntl
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Literal, Self, TypeAlias

import msgspec

from shoal.agent.client_state import ClientStates
from shoal.agent.sealed import Seal
from shoal.agent.sealed_file import opened, sealed
from shoal.core.errors import BadRequest, ConfigurationError, CorruptStore, WrongKey
from shoal.core.receipt import Receipt
from shoal.store.durable import PARTIAL, append_durably, storage_full, sync_folder, write_durably
from shoal.wire.models import checked
from shoal.wire.signing import Ed25519Key
from shoal.wire.source import Source

REPORT = ".report"
PART = ".part"
"""How the names of files end that are still being downloaded, which goes on with them after a restart."""
Fetch: TypeAlias = Callable[[int], Iterable[bytes]]
"""Yields the bytes of a blob from an offset on."""

PRIVATE = "the device's private key"
RELEASES = "releases.jsonl"
RECEIPTS = "receipts.jsonl"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is to its coordinator. `private_key` is a raw Ed25519 key in base64.

    `coordinator_key` is the public key that signs its receipts, pinned when the device enrolled. On disk the private
    key is `sealed` where the home has a seal.
    """

    url: str
    name: str
    private_key: str
    device: str = ""
    coordinator_key: str = ""
    sealed: bool = False

    @property
    def key(self) -> Ed25519Key:
        """The key that signs its calls."""
        return Ed25519Key(self.private_key)


@dataclass(frozen=True, slots=True)
class Release:
    """One line of the owner's log: what left, or was refused, for which round, and as which bytes.

    `what` lists arrays with their shapes, or the columns of a statistics pass; `norm` is the Euclidean length of an
    update; `reason` says why something was refused.
    """

    time: float
    task: str
    round: int
    kind: Literal["statistics", "update", "evaluation", "refused"]
    what: tuple[str, ...] = ()
    bytes: int = 0
    digest: str = ""
    norm: float = 0.0
    reason: str = ""


class AgentHome:
    """The folder of one device, held by one agent at a time.

    `seal` seals what waits to be sent; `states` keeps what tasks leave here. Raises ConfigurationError when another
    holds it, or when it cannot be written to.
    """

    def __init__(self, path: Path | str, seal: Seal = Seal()) -> None:  # noqa: B008  (it never changes)
        self.path = Path(path)
        self.seal = seal
        try:
            self._open()
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be a device's home: {error.strerror}", "give a folder that you may write to"
            ) from error

    def _open(self) -> None:
        self._make(self.path)
        self._lock = _lock(self.path)
        for folder in (self._outbox, self._blobs, self._versions):
            self._make(folder)
        self.states = ClientStates(self.path, self.seal)
        for leftover in self.path.rglob(f"*{PARTIAL}"):
            leftover.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another agent have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def _outbox(self) -> Path:
        return self.path / "outbox"

    @property
    def _blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def _versions(self) -> Path:
        return self.path / "versions"

    @staticmethod
    def _make(folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    def identity(self, url: str, name: str) -> Identity:
        """Return who this device is, with a new key on the first call.

        The key is durable before it is shown to anyone, so a lost reply to the enrolment can be asked for again.
        Raises ConfigurationError when the folder belongs to another device or coordinator.
        """
        path = self.path / "device.json"
        if path.exists():
            return self._checked(self._opened(_read_identity(path)), url, name)
        made = Identity(url, name, Ed25519Key.generate())
        self.save(made)
        return made

    def known(self) -> Identity | None:
        """Return who this device is, or None before the first call of `identity`."""
        path = self.path / "device.json"
        return self._opened(_read_identity(path)) if path.exists() else None

    def save(self, identity: Identity) -> None:
        """Keep who this device is."""
        if self.seal.encrypts:
            private = self.seal.seal(identity.private_key.encode(), PRIVATE)
            identity = replace(identity, private_key=b64encode(private).decode(), sealed=True)
        write_durably(self.path / "device.json", [msgspec.json.encode(identity)], 0o600)

    def _opened(self, kept: Identity) -> Identity:
        if kept.sealed != self.seal.encrypts:
            how = "sealed, no key was given" if kept.sealed else "not sealed, a key was given"
            raise WrongKey(f"{self.path} is {how}", "give the key that the home was made with, and none if it had none")
        if not kept.sealed:
            return kept
        private = self.seal.open(b64decode(kept.private_key), PRIVATE).decode()
        return replace(kept, private_key=private, sealed=False)

    def _checked(self, found: Identity, url: str, name: str) -> Identity:
        if (found.url, found.name) != (url, name):
            raise ConfigurationError(
                f"{self.path} belongs to device {found.name!r} of {found.url}, not to {name!r} of {url}",
                "give another home, or the name and address that it was made for",
            )
        return found

    def keep_report(self, assignment: str, body: Iterable[bytes | memoryview]) -> None:
        """Make a report durable, before it is sent."""
        write_durably(self._report(assignment), sealed(body, self.seal, assignment), 0o600)

    def reports(self) -> list[str]:
        """Return the assignments whose reports have no receipt yet."""
        return sorted(path.name.removesuffix(REPORT) for path in self._outbox.glob(f"*{REPORT}"))

    def report(self, assignment: str) -> Source:
        """Return a report that is still to be sent."""
        return opened(self._report(assignment), self.seal, assignment)

    def drop_report(self, assignment: str) -> None:
        """Forget a report that has its receipt or that nobody needs."""
        self._report(assignment).unlink(missing_ok=True)

    def _report(self, assignment: str) -> Path:
        return self._outbox / f"{_harmless('assignment', assignment)}{REPORT}"

    def log(self, release: Release) -> None:
        """Add a line to the log of releases, durable on return."""
        append_durably(self.path / RELEASES, msgspec.json.encode(release) + b"\n", 0o600)

    def releases(self) -> Iterator[Release]:
        """Yield the log of releases, oldest first."""
        return released(self.path)

    def keep_receipt(self, receipt: Receipt) -> None:
        """Keep the receipt of a release, durable on return."""
        append_durably(self.path / RECEIPTS, msgspec.json.encode(receipt) + b"\n", 0o600)

    def blob(self, digest: str) -> Path | None:
        """Return the file of bytes that were kept under a digest, or None when there is none or it was damaged."""
        return _sound(self._blobs, digest)

    def keep_blob(self, digest: str, fetch: Fetch) -> Path:
        """Keep bytes for ever. `fetch` yields them from an offset on: what it brought before it failed stays.

        Raises CorruptStore when they are not those of the digest, and keeps nothing.
        """
        return _keep(self._blobs / _harmless("digest", digest), digest, fetch)

    def version(self, digest: str) -> Path | None:
        """Return the file of a version that was kept, or None when there is none or it was damaged."""
        return _sound(self._versions, digest)

    def keep_version(self, digest: str, fetch: Fetch) -> Path:
        """Keep a version, as with `keep_blob`; the one before goes once this one is durable."""
        path = _keep(self._versions / _harmless("digest", digest), digest, fetch)
        for former in self._versions.iterdir():
            if former != path:
                former.unlink()
        return path


def released(home: Path) -> Iterator[Release]:
    """Yield the log of releases in a home, oldest first, also while an agent uses it."""
    return (msgspec.json.decode(line, type=Release) for line in _lines(home / RELEASES))


def receipts(home: Path) -> Iterator[Receipt]:
    """Yield the receipts in a home, oldest first, also while an agent uses it."""
    return (msgspec.json.decode(line, type=Receipt) for line in _lines(home / RECEIPTS))


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def pinned_key(home: Path) -> str:
    """Return the coordinator's key that a device pinned. Raises ConfigurationError when it never enrolled."""
    path = home / "device.json"
    key = _read_identity(path).coordinator_key if path.exists() else ""
    if not key:
        raise ConfigurationError(f"{home} is not the home of a device that enrolled", "give the agent's --home")
    return key


def _keep(path: Path, digest: str, fetch: Fetch) -> Path:
    part = path.with_name(path.name + PART)
    try:
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
            had = iter(partial(file.read, 1 << 18), b"")
            for piece in checked(digest, had, lambda: fetch(file.tell())):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except CorruptStore:
        part.unlink()
        raise
    except OSError as error:
        part.unlink()
        raise storage_full(part, error) from error
    sync_folder(path.parent)
    return path


def _sound(folder: Path, digest: str) -> Path | None:
    path = folder / _harmless("digest", digest)
    if not path.exists():
        return None
    with path.open("rb") as file:
        return path if file_digest(file, "sha256").hexdigest() == digest else None


def _harmless(what: str, name: str) -> str:
    # it comes from the network and becomes part of a path
    if not (1 <= len(name) <= 64 and name.isascii() and name.isalnum()):
        raise BadRequest(f"{what} {name[:80]!r}", "expected up to 64 letters and digits")
    return name


def _lock(home: Path) -> int:
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigurationError(
            f"another agent uses {home}", "stop it, or give each agent a home of its own"
        ) from None
    return handle


def _read_identity(path: Path) -> Identity:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error})", "restore it, or give a new home and enrol under a new name"
        ) from error
