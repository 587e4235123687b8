"""What is sent from a disk: bytes that can be read more than once, and from any place."""

from dataclasses import dataclass
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Protocol, TypeAlias

Reader: TypeAlias = RawIOBase | BufferedIOBase


class Source(Protocol):
    """Bytes on a disk, as they are to be sent."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def open(self) -> Reader:
        """Return a reader at the first of them; whoever opened it closes it."""
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """The bytes of a file, as they lie there."""

    path: Path

    @property
    def size(self) -> int:
        """How many there are."""
        return self.path.stat().st_size

    def open(self) -> Reader:
        """Return a reader at the first of them."""
        return self.path.open("rb", buffering=0)
