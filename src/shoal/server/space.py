"""How much room a home takes, and whether there is some left for an upload."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import StorageFull
from shoal.server.limits import Limits


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that a home takes, and bytes that are free on its disk."""

    used: int
    free: int


UNMEASURED = Room(0, 1 << 62)
"""What is said of a home that lies on no disk."""


def measure(home: Path) -> Room:
    """Measure a folder and its disk. A file that goes meanwhile counts as nothing."""
    disk = os.statvfs(home)
    return Room(sum(_sizes(home)), disk.f_bavail * disk.f_frsize)


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue


class Space:
    """Room in one home, measured now and then; between two looks it counts what was let in.

    What is removed counts from the next look on, so that the sum errs to the safe side.
    """

    def __init__(self, measured: Callable[[], Room], limits: Limits) -> None:
        self._measured = measured
        self._limits = limits
        self._coming = 0
        self._since = 0
        self.room = measured()

    def look(self) -> Room:
        """Measure again; what is still coming counts beside what was found."""
        since = self._coming
        self.room = self._measured()
        self._since = since
        return self.room

    def fits(self, size: int) -> bool:
        """Return whether so many bytes more would keep to the limits, by what is known."""
        return not self._excess(size)

    @contextmanager
    def taking(self, size: int) -> "Iterator[Place]":
        """Set so many bytes aside while they arrive. Raises StorageFull."""
        place = Place(self)
        try:
            place.grow_to(size)
            yield place
        finally:
            self._coming -= place.size

    def take(self, more: int) -> None:
        """Count bytes as coming. Raises StorageFull."""
        if problem := self._excess(more):
            raise _full(problem)
        self._coming += more
        self._since += more

    def check(self, size: int) -> None:
        """Raise StorageFull when so many bytes more would not keep to the limits; nothing is set aside."""
        if problem := self._excess(size):
            raise _full(problem)

    def _excess(self, more: int) -> str:
        used, free = self.room.used + self._since, self.room.free - self._since
        quota, reserve = self._limits.quota, self._limits.reserve
        if quota is not None and used + more > quota:
            return f"{more} bytes beside the {used} in the home would exceed its quota of {quota}"
        if reserve and free - more < reserve:
            return f"{more} bytes would leave {max(0, free - more)} free on the disk, {reserve} are kept in reserve"
        return ""


def _full(problem: str) -> StorageFull:
    return StorageFull(problem, "keep fewer versions (--keep-versions), or give more room (--quota, more disk)")


class Place:
    """Room that one upload holds while it arrives."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.size = 0

    def grow_to(self, size: int) -> None:
        """Hold at least so many bytes. Raises StorageFull."""
        more = size - self.size
        if more > 0:
            self._space.take(more)
            self.size += more

    async def holding(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass pieces on, and hold room for those that were not announced. Raises StorageFull."""
        size = 0
        async for piece in pieces:
            size += len(piece)
            self.grow_to(size)
            yield piece
