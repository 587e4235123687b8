"""Uploads that are not complete: what has arrived of each, and of what it is a part. They outlive the process."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from shoal.core.errors import BadRequest, NotFound
from shoal.store.durable import storage_full, sync_folder, write_durably

PIECE = 1 << 18
"""Bytes in which an upload is read."""

NAME = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass(frozen=True, slots=True)
class Upload:
    """What a device set out to send for an assignment: `length` bytes whose SHA-256 in hex is `digest`."""

    assignment: str
    device: str
    digest: str
    length: int


class Uploads(Protocol):
    """Where they are kept. An assignment has one at most; every method but `begin` and `remove` may raise NotFound."""

    def begin(self, upload: Upload) -> None:
        """Start one, empty, in the place of what the assignment had. Raises StorageFull."""
        ...

    def find(self, assignment: str) -> Upload:
        """Return what is known of one."""
        ...

    def every(self) -> list[Upload]:
        """Return all of them."""
        ...

    def offset(self, assignment: str) -> int:
        """Return how many bytes have arrived."""
        ...

    def write(self, assignment: str, offset: int, chunk: bytes | memoryview) -> None:
        """Put bytes at an offset, and let what lay behind it go. Raises StorageFull."""
        ...

    def sync(self, assignment: str) -> None:
        """Return once what has arrived would survive a power cut. Raises StorageFull."""
        ...

    def open(self, assignment: str) -> Iterator[bytes]:
        """Yield what has arrived, in pieces."""
        ...

    def remove(self, assignment: str) -> None:
        """Forget one; harmless when there is none."""
        ...


class FolderUploads:
    """Two files for each upload: `ID.json` says what it is, `ID.part` is what has arrived."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, upload: Upload) -> None:
        """Start one: the bytes of a former one go before its name does."""
        part = self._part(upload.assignment)
        try:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise storage_full(part, error) from error
        write_durably(self._about(upload.assignment), [msgspec.json.encode(upload)], 0o600)

    def find(self, assignment: str) -> Upload:
        """Return what is known of one."""
        about = self._about(assignment)
        if not about.exists() or not self._part(assignment).exists():
            raise _none(assignment)
        return msgspec.json.decode(about.read_bytes(), type=Upload)

    def every(self) -> list[Upload]:
        """Return all of them."""
        names = sorted(path.stem for path in self.path.glob("*.json"))
        return [self.find(name) for name in names if self._part(name).exists()]

    def offset(self, assignment: str) -> int:
        """Return how many bytes have arrived."""
        self.find(assignment)
        return self._part(assignment).stat().st_size

    def write(self, assignment: str, offset: int, chunk: bytes | memoryview) -> None:
        """Put bytes at an offset."""
        self.find(assignment)
        part, rest = self._part(assignment), memoryview(chunk).cast("B")
        try:
            with part.open("r+b", buffering=0) as file:
                file.truncate(offset)
                file.seek(offset)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            raise storage_full(part, error) from error

    def sync(self, assignment: str) -> None:
        """Make what has arrived durable."""
        self.find(assignment)
        part = self._part(assignment)
        try:
            with part.open("rb") as file:
                os.fsync(file.fileno())
            sync_folder(self.path)
        except OSError as error:
            raise storage_full(part, error) from error

    def open(self, assignment: str) -> Iterator[bytes]:
        """Yield what has arrived."""
        self.find(assignment)
        with self._part(assignment).open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece

    def remove(self, assignment: str) -> None:
        """Forget one."""
        self._about(assignment).unlink(missing_ok=True)
        self._part(assignment).unlink(missing_ok=True)

    def _about(self, assignment: str) -> Path:
        return self.path / f"{_harmless(assignment)}.json"

    def _part(self, assignment: str) -> Path:
        return self.path / f"{_harmless(assignment)}.part"


class MemoryUploads:
    """Uploads in memory, for tests."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Upload, bytearray]] = {}

    def begin(self, upload: Upload) -> None:
        """Start one."""
        self._kept[_harmless(upload.assignment)] = (upload, bytearray())

    def _found(self, assignment: str) -> tuple[Upload, bytearray]:
        if assignment not in self._kept:
            raise _none(assignment)
        return self._kept[assignment]

    def find(self, assignment: str) -> Upload:
        """Return what is known of one."""
        return self._found(assignment)[0]

    def every(self) -> list[Upload]:
        """Return all of them."""
        return [upload for upload, _ in self._kept.values()]

    def offset(self, assignment: str) -> int:
        """Return how many bytes have arrived."""
        return len(self._found(assignment)[1])

    def write(self, assignment: str, offset: int, chunk: bytes | memoryview) -> None:
        """Put bytes at an offset."""
        self._found(assignment)[1][offset:] = chunk

    def sync(self, assignment: str) -> None:
        """Do nothing: memory is not durable."""
        self._found(assignment)

    def open(self, assignment: str) -> Iterator[bytes]:
        """Yield what has arrived."""
        yield bytes(self._found(assignment)[1])

    def remove(self, assignment: str) -> None:
        """Forget one."""
        self._kept.pop(assignment, None)


def _harmless(assignment: str) -> str:
    # it becomes part of a path
    if not NAME.fullmatch(assignment):
        raise BadRequest(f"assignment {assignment[:80]!r}", "expected up to 64 letters and digits")
    return assignment


def _none(assignment: str) -> NotFound:
    return NotFound(f"no upload for assignment {assignment}", "begin one with POST")
