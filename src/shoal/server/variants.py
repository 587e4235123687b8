"""Published blobs as gzip (RFC 1952), where that pays: each made once, kept in a folder that stays under a bound."""

import asyncio
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from shoal.core.errors import NotFound, StorageFull
from shoal.store.blobs import PIECE
from shoal.store.durable import PARTIAL, write_durably
from shoal.store.store import Blobs

LEAST = 4096
"""Bytes below which compressing is not worth a file."""

PAYS = 0.9
"""What a variant may be of its blob's size; noise, such as trained float32 weights, is not far below 0.93."""

AT_ONCE = 1 << 20
"""Blobs up to this size are compressed while their first caller waits; larger ones for the callers after it."""

SUFFIX = ".gz"
GZIP = 31
LEVEL = 1
"""Of zlib: the higher levels save a per cent of weights and cost ten times the processor time."""

log = structlog.get_logger()


class Variants:
    """The variants of one home on its event loop; without a folder there are none. `most` bounds their bytes."""

    def __init__(self, folder: Path | None, blobs: Blobs, most: int = 1 << 30) -> None:
        self._folder = folder
        self._blobs = blobs
        self._most = most
        self._vain: set[str] = set()
        self._making: dict[str, asyncio.Task[None]] = {}
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in folder.glob(f"*{PARTIAL}"):
                leftover.unlink()

    async def find(self, digest: str, size: int) -> "Variant | None":
        """Return a blob's variant, and note that it was asked for; None when there is none, or none yet."""
        if self._folder is None or size < LEAST or digest in self._vain:
            return None
        path = self._folder / f"{digest}{SUFFIX}"
        if not path.exists():
            if digest not in self._making:
                self._making[digest] = asyncio.create_task(self._make(digest, path))
            if size > AT_ONCE:
                return None
            await asyncio.shield(self._making[digest])
        try:
            os.utime(path)
            return Variant(path.open("rb", buffering=0), path.stat().st_size)
        except FileNotFoundError:
            return None  # it did not pay, or others took its place

    def forget(self, digest: str) -> None:
        """Remove the variant of a blob that is removed."""
        if self._folder is not None:
            (self._folder / f"{digest}{SUFFIX}").unlink(missing_ok=True)

    async def _make(self, digest: str, path: Path) -> None:
        try:
            if not await asyncio.to_thread(self._made, digest, path):
                self._vain.add(digest)
        except (NotFound, StorageFull) as error:
            log.warning("not compressed", blob=digest, problem=error.problem)
        finally:
            del self._making[digest]

    def _made(self, digest: str, path: Path) -> bool:
        sample = next(self._blobs.open(digest), b"")
        if len(b"".join(_gzip([sample]))) > PAYS * len(sample):
            return False
        limit = min(self._most, int(PAYS * self._blobs.size(digest)))
        try:
            write_durably(path, _at_most(_gzip(self._blobs.open(digest)), limit), 0o600)
        except _TooLong:
            return False
        self._trim(path)
        return True

    def _trim(self, newest: Path) -> None:
        """Remove the variants that were asked for longest ago, until all are within the bound."""
        kept = sorted(newest.parent.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_atime_ns, reverse=True)
        kept.sort(key=lambda path: path != newest)
        total = 0
        for path in kept:
            total += path.stat().st_size
            if total > self._most:
                path.unlink(missing_ok=True)


class Variant:
    """An open variant of `size` bytes: it can be read also when its file is removed meanwhile."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self.size = size
        self._file = file

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes, once."""
        with self._file:
            while piece := self._file.read(PIECE):
                yield piece


class _TooLong(Exception):
    pass


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    yield from (packer.compress(piece) for piece in pieces)
    yield packer.flush()


def _at_most(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    for piece in pieces:
        limit -= len(piece)
        if limit < 0:
            raise _TooLong
        yield piece
