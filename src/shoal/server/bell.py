"""Waking those who wait for something to change."""

import asyncio
from collections.abc import AsyncIterator


class Bell:
    """Rings for everybody who waits. Belongs to one event loop. `waiting` counts those whom `rings` holds."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._closed = False
        self.waiting = 0

    def ring(self) -> None:
        """Wake everybody who waits now."""
        self._rung.set()
        self._rung = asyncio.Event()

    def close(self) -> None:
        """Wake everybody, now and from now on."""
        self._closed = True
        self.ring()

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after a time."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return

    async def rings(self, seconds: float) -> AsyncIterator[float]:
        """Yield at once, at every ring, and when the time is up; each time how many seconds went by in waiting."""
        loop = asyncio.get_running_loop()
        waited = 0.0
        while True:
            rung = self._rung
            yield waited
            if waited >= seconds or self._closed:
                return
            started = loop.time()
            self.waiting += 1
            try:
                async with asyncio.timeout(seconds - waited):
                    await rung.wait()
            except TimeoutError:
                break
            finally:
                self.waiting -= 1
            waited += loop.time() - started
        yield seconds
