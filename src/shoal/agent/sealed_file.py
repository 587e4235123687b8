"""Files of any size at rest: sealed piece by piece, so that any part can be read without the whole.

A piece is bound to its file's name, to its place in it, and to whether it is the last: pieces that were exchanged,
left out or cut off are noticed.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import SEEK_SET, RawIOBase
from pathlib import Path
from typing import BinaryIO

from shoal.agent.sealed import NONCE, Seal
from shoal.wire.source import FileSource, Reader, Source

PIECE = 1 << 18
"""Bytes of a piece before it is sealed."""

OVERHEAD = NONCE + 16
"""Bytes that a piece is longer by once it is sealed: its nonce and its tag."""


def sealed(pieces: Iterable[bytes | memoryview], seal: Seal, about: str) -> Iterator[bytes | memoryview]:
    """Yield what a file is to hold; the bytes themselves without a key."""
    if not seal.encrypts:
        yield from pieces
        return
    waiting, number = bytearray(), 0
    for piece in pieces:
        waiting += piece
        while len(waiting) > PIECE:  # one byte stays: the last piece is not known before the end
            yield seal.seal(bytes(waiting[:PIECE]), _place(about, number, last=False))
            del waiting[:PIECE]
            number += 1
    yield seal.seal(bytes(waiting), _place(about, number, last=True))


def opened(path: Path, seal: Seal, about: str) -> Source:
    """Return the bytes behind a file that `sealed` made."""
    return SealedSource(path, seal, about) if seal.encrypts else FileSource(path)


def _place(about: str, number: int, *, last: bool) -> str:
    return f"{about} {number}{' end' if last else ''}"


@dataclass(frozen=True, slots=True)
class SealedSource:
    """The bytes of a sealed file. Reading raises WrongKey for another key and for changed bytes."""

    path: Path
    seal: Seal
    about: str

    @property
    def size(self) -> int:
        """How many there are, sealed bytes apart."""
        stored = self.path.stat().st_size
        return stored - OVERHEAD * _pieces(stored)

    def open(self) -> Reader:
        """Return a reader at the first of them."""
        return _Reader(self.path.open("rb"), self.size, self.seal, self.about)


def _pieces(stored: int) -> int:
    return max(1, -(-stored // (PIECE + OVERHEAD)))


class _Reader(RawIOBase):
    def __init__(self, file: BinaryIO, size: int, seal: Seal, about: str) -> None:
        self._file = file
        self._size = size
        self._seal = seal
        self._about = about
        self._at = 0
        self._last = _pieces(os.fstat(file.fileno()).st_size) - 1
        self._piece: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = {0: 0, 1: self._at, 2: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        number, start = divmod(self._at, PIECE)
        found = self._opened(number)[start : start + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _opened(self, number: int) -> bytes:
        if self._piece[0] != number:
            self._file.seek(number * (PIECE + OVERHEAD))
            data = self._file.read(PIECE + OVERHEAD)
            place = _place(self._about, number, last=number == self._last)
            self._piece = (number, self._seal.open(data, place))
        return self._piece[1]

    def close(self) -> None:
        self._file.close()
        super().close()
