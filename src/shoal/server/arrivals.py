"""Bytes that come and bytes that go, kept apart.

Updates are kept once per digest. While a report brings some bytes, a clean-up of an earlier round must not remove equal
ones, and a report whose bytes are just being removed must wait until they are gone, to bring them anew.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Arrivals:
    """The digests under way on one event loop; every check and its consequence are one step of that loop."""

    def __init__(self) -> None:
        self._coming: Counter[str] = Counter()
        self._going: dict[str, asyncio.Event] = {}

    def count(self, digest: str) -> int:
        """Return how many reports with this digest are under way."""
        return self._coming[digest]

    @asynccontextmanager
    async def coming(self, digest: str) -> AsyncIterator[None]:
        """Keep a digest's bytes from being removed for the time of a block."""
        while (going := self._going.get(digest)) is not None:
            await going.wait()
        self._coming[digest] += 1
        try:
            yield
        finally:
            self._coming[digest] -= 1
            if not self._coming[digest]:
                del self._coming[digest]

    @asynccontextmanager
    async def going(self, digests: Iterable[str]) -> AsyncIterator[None]:
        """Keep reports with these digests waiting for the time of a block that removes their bytes."""
        gone = asyncio.Event()
        mine = {digest for digest in digests if digest not in self._going}
        self._going.update(dict.fromkeys(mine, gone))
        try:
            yield
        finally:
            for digest in mine:
                del self._going[digest]
            gone.set()
