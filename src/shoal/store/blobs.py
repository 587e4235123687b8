"""Blobs in a folder: `<namespace>/<first two digits>/<SHA-256>`, written beside it and moved in when they are whole.

A blob counts as durable when its bytes, its name and the folder that holds the name have reached the disk. What a
crash left half written lies in `incoming` and goes when the folder is opened again; a lock on each such file keeps
other processes from taking one that is still being written.
"""

import fcntl
import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shoal.store.durable import storage_full, sync_folder
from shoal.store.rules import no_blob
from shoal.store.store import Namespace, Stored

PIECE = 1 << 18
"""Bytes in which `open` hands out a blob."""

DIGEST = re.compile(r"[0-9a-f]{64}")


class FolderBlobs:
    """Blobs under one folder, which is created, for its owner alone, where there is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._incoming = self.path / "incoming"
        self._folders: Mapping[Namespace, Path] = {
            "published": self.path / "published",
            "updates": self.path / "updates",
        }
        for folder in (self._incoming, *self._folders.values()):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self.path)
        _clear(self._incoming)

    def writer(self, namespace: Namespace) -> "FolderBlobWriter":
        """Start a blob."""
        return FolderBlobWriter(self._incoming, self._folders[namespace])

    def open(self, digest: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes [start, stop) in pieces of 256 KiB. Raises NotFound, before the first piece."""
        return _read(self._find(digest)[1], start, stop)

    def size(self, digest: str) -> int:
        """Return the number of bytes. Raises NotFound."""
        return self._find(digest)[1].stat().st_size

    def namespace(self, digest: str) -> Namespace:
        """Return where a blob lies. Raises NotFound."""
        return self._find(digest)[0]

    def stored(self, namespace: Namespace) -> Iterator[Stored]:
        """Yield every blob of a namespace, kept since its file was written."""
        for path in self._folders[namespace].glob("??/*"):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            yield Stored(path.name, found.st_size, found.st_mtime)

    def delete(self, digest: str) -> None:
        """Remove a blob, first as an update, then as published; an unknown digest is ignored."""
        if not DIGEST.fullmatch(digest):
            return
        for namespace in ("updates", "published"):
            try:
                _place(self._folders[namespace], digest).unlink()
            except FileNotFoundError:
                continue
            return

    def _find(self, digest: str) -> tuple[Namespace, Path]:
        # Only what is a digest may become part of a path.
        if DIGEST.fullmatch(digest):
            for namespace, folder in self._folders.items():
                if (path := _place(folder, digest)).exists():
                    return namespace, path
        raise no_blob(digest)


class FolderBlobWriter:
    """Streams one blob to a file beside its namespace while hashing it."""

    def __init__(self, incoming: Path, folder: Path) -> None:
        self._folder = folder
        with _space(incoming):
            self._path, self._file = _claim(incoming)
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next piece. Raises StorageFull."""
        rest = memoryview(chunk).cast("B")
        self._hash.update(rest)
        with _space(self._path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def commit(self) -> str:
        """Make the blob durable and visible; return its SHA-256. Raises StorageFull."""
        digest = self._hash.hexdigest()
        target = _place(self._folder, digest)
        with _space(self._path):
            os.fsync(self._file.fileno())
            target.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.replace(target)
            sync_folder(target.parent)
            sync_folder(self._folder)
        self._file.close()
        return digest

    def abort(self) -> None:
        """Throw the pieces away; harmless after commit."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def _place(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / digest


def _claim(incoming: Path) -> tuple[Path, io.FileIO]:
    """Create a file that no other process clears away: one that was, before it was locked, is made again."""
    while True:
        path = incoming / uuid.uuid4().hex
        file = io.FileIO(path, "xb", opener=_private)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _clear(incoming: Path) -> None:
    """Remove files whose writers are gone, and with them their locks."""
    for path in incoming.iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)


def _read(path: Path, start: int, stop: int | None) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        left = file.seek(0, os.SEEK_END) if stop is None else stop
        left -= file.seek(start)
        while left > 0 and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece


@contextmanager
def _space(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_full(path, error) from error
