"""Waking those who wait: followers for whatever happens, devices only when there may be work for them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(eq=False, slots=True)
class Place:
    """Where a device stands in line: `called` is set when it may go on, `over` when it is not to wait any longer."""

    device: str
    over: bool
    called: asyncio.Event = field(default_factory=asyncio.Event)

    def dismiss(self) -> None:
        """End the waiting."""
        self.over = True
        self.called.set()


class Bell(Generic[K]):
    """Two kinds of waiting, on one event loop. `waiting` counts everybody who is held, `woken` the times one was woken.

    Those who follow are woken at each ring. Devices stand in line by what they offer (`K`), in the order in which
    they came: a call wakes as many as there are places, each of whom may get one, and leaves the others asleep.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._lines: dict[K, dict[Place, None]] = {}
        self._closed = False
        self.waiting = 0
        self.woken = 0

    def ring(self) -> None:
        """Wake everybody who follows."""
        self._rung.set()
        self._rung = asyncio.Event()

    def call(self, offers: Callable[[K], bool], devices: Callable[[str, K], bool], places: int) -> None:
        """Wake at most `places` devices, first come first, out of the lines whose offer is taken."""
        for offer, line in self._lines.items() if places > 0 else ():
            if not offers(offer):
                continue
            for place in line:
                if places <= 0:
                    return
                if not place.called.is_set() and devices(place.device, offer):
                    place.called.set()
                    places -= 1

    def dismiss(self, device: str) -> None:
        """End a device's waiting at once."""
        for line in self._lines.values():
            for place in line:
                if place.device == device:
                    place.dismiss()

    def close(self) -> None:
        """Wake everybody, now and from now on."""
        self._closed = True
        self.ring()
        for line in self._lines.values():
            for place in line:
                place.dismiss()

    @contextmanager
    def in_line(self, device: str, offer: K) -> Iterator[Place]:
        """Let a device stand in line for the time of a block."""
        line = self._lines.setdefault(offer, {})
        place = Place(device, self._closed)
        line[place] = None
        try:
            yield place
        finally:
            del line[place]
            if not line:
                self._lines.pop(offer, None)

    async def called(self, place: Place, seconds: float) -> float | None:
        """Wait until a place is called; return for how many seconds, or None when the time was up before."""
        return await self._held(place.called, seconds)

    @property
    def closed(self) -> bool:
        """Whether nobody is to wait any longer."""
        return self._closed

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after a time."""
        await _set(self._rung, seconds)

    async def rings(self, seconds: float) -> AsyncIterator[float]:
        """Yield at once, at every ring, and when the time is up; each time how many seconds went by in waiting."""
        waited = 0.0
        while True:
            rung = self._rung
            yield waited
            if waited >= seconds or self._closed:
                return
            held = await self._held(rung, seconds - waited)
            if held is None:
                break
            waited += held
        yield seconds

    async def _held(self, event: asyncio.Event, seconds: float) -> float | None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.waiting += 1
        try:
            rung = await _set(event, seconds)
        finally:
            self.waiting -= 1
        self.woken += rung
        return loop.time() - started if rung else None


async def _set(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
