"""Keeping a home small: removes what retention gives up, and makes room before an upload is turned away."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from shoal.core.errors import NotFound
from shoal.rounds.phase import Phase
from shoal.server.arrivals import Arrivals
from shoal.server.auth import Identities
from shoal.server.limits import Limits
from shoal.server.retention import Kept, expired, known, orphans, updates, used
from shoal.server.running import RunningTask
from shoal.server.space import Place, Room, Space
from shoal.server.storage import Storage
from shoal.server.tasks import Tasks
from shoal.server.variants import Variants
from shoal.store.store import Stored

HOUR = 3600.0
SEEN_SECONDS = 60.0
"""How often it is made durable when devices called."""

LOOK_SECONDS = 1.0
"""A full home is not searched for room more often than this."""

log = structlog.get_logger()


class Housekeeping:
    """What a coordinator does beside its tasks, on its event loop. `removed` counts the blobs that it took away."""

    def __init__(
        self,
        storage: Storage,
        tasks: Tasks,
        arrivals: Arrivals,
        identities: Identities,
        clock: Callable[[], float],
        limits: Limits,
        measured: Callable[[], Room],
        variants: Variants,
    ) -> None:
        self.limits = limits
        self.space = Space(measured, limits)
        self.pins = {(stream, number) for stream, number in storage.store.pins()}
        self.removed = 0
        self._storage = storage
        self._variants = variants
        self._tasks = tasks
        self._arrivals = arrivals
        self._identities = identities
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._known = 0
        self._cleaned = self._noted = self._looked = float("-inf")

    async def tick(self) -> None:
        """Do what is due: the clean-up every hour and at the first call, old versions as new ones come."""
        now = self._clock()
        if now - self._cleaned >= HOUR:
            await self.clean()
        elif self._known != self._versions():
            await self._remove_versions()
        if now - self._noted >= SEEN_SECONDS:
            await self.note()

    async def clean(self) -> None:
        """Remove orphans and old versions, and measure what is left."""
        self._cleaned = self._clock()
        await self._remove_orphans()
        await self._remove_unnamed()
        await self._remove_versions()
        await self.look()

    @property
    def _alone(self) -> bool:
        """Whether all tasks are led here: what another coordinator needs is not known."""
        return not any(task.stopped for task in self._tasks.values())

    async def look(self) -> Room:
        """Measure the home."""
        return await asyncio.to_thread(self.space.look)

    async def note(self) -> None:
        """Make durable when devices called last."""
        self._noted = self._clock()
        fresh = self._identities.unnoted()
        if fresh:
            await asyncio.to_thread(self._storage.store.saw, fresh)

    @asynccontextmanager
    async def taking(self, size: int) -> AsyncIterator[Place]:
        """Set room aside for an upload of so many bytes, and clean up first when there is none. Raises StorageFull."""
        now = self._clock()
        if not self.space.fits(size) and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            await self.clean()
        with self.space.taking(size) as place:
            yield place

    # Updates

    async def _remove_orphans(self) -> None:
        stored = await asyncio.to_thread(self._updates)
        if not self._alone:
            return
        needed = {digest for task in self._tasks.values() for digest in updates(task.state)}
        doomed = orphans(stored, needed, self._clock(), self.limits.grace)
        doomed = [blob for blob in doomed if not self._arrivals.count(blob.digest)]
        await self._remove((blob.digest for blob in doomed), self._storage.forget)
        if doomed:
            log.info("orphans removed", updates=len(doomed), bytes=sum(blob.size for blob in doomed))

    def _updates(self) -> list[Stored]:
        return [*self._storage.store.inline_stored(), *self._storage.blobs.stored("updates")]

    # Versions

    def sent(self, digest: str) -> None:
        """Keep bytes that a researcher has just sent, until the task that names them is published."""
        now = self._clock()
        self._sent = {kept: at for kept, at in self._sent.items() if now - at <= self.limits.grace}
        self._sent[digest] = now

    async def pin(self, task: RunningTask, number: int, pinned: bool) -> None:
        """Keep a version whatever else goes, or no longer. Raises NotFound, Gone when it was removed already."""
        version = next((version for version in task.state.versions if version.number == number), None)
        if version is None:
            raise NotFound(f"task {task.task!r} has no version {number}", f"its newest is {task.state.latest.number}")
        async with self._arrivals.coming(version.digest):
            if pinned:
                self._tasks.present(version.digest)
            (self.pins.add if pinned else self.pins.discard)((task.task, number))
            await asyncio.to_thread(self._storage.store.pin, task.task, number, pinned)
        self._known = -1

    async def _remove_unnamed(self) -> None:
        """Remove what was published and is named by nothing, such as the model of a task that was never begun."""
        stored = await asyncio.to_thread(lambda: [*self._storage.blobs.stored("published")])
        # a round that is being combined may be writing the very bytes that one before a crash left behind
        if not self._alone or any(task.state.phase is Phase.COMMITTING for task in self._tasks.values()):
            return
        needed = {digest for task in self._tasks.values() for digest in known(task.state)}
        doomed = orphans(stored, needed, self._clock(), self.limits.grace)
        there = [blob.digest for blob in doomed if self._removable(blob.digest)]
        await self._remove(there, self._delete)
        if there:
            log.info("unnamed blobs removed", blobs=len(there))

    def _versions(self) -> int:
        return sum(len(task.state.versions) for task in self._tasks.values())

    async def _remove_versions(self) -> None:
        self._known = self._versions()
        if not self._alone:
            return
        kept = [Kept(t.state.versions, used(t.state), self.pinned(name)) for name, t in self._tasks.items()]
        there = [digest for digest in expired(kept, self.limits) if self._removable(digest)]
        await self._remove(there, self._delete)
        if there:
            log.info("old versions removed", blobs=len(there), kept=self.limits.keep_versions)

    def pinned(self, task: str) -> set[int]:
        """Return the numbers of a task's versions that stay."""
        return {number for stream, number in self.pins if stream == task}

    def _removable(self, digest: str) -> bool:
        if self._arrivals.count(digest) or self._clock() - self._sent.get(digest, float("-inf")) <= self.limits.grace:
            return False
        try:
            return self._storage.blobs.namespace(digest) == "published"
        except NotFound:
            return False

    def _delete(self, digests: tuple[str, ...]) -> None:
        for digest in digests:
            self._storage.blobs.delete(digest)
            self._variants.forget(digest)

    async def _remove(self, digests: Iterable[str], remove: Callable[[tuple[str, ...]], None]) -> None:
        doomed = tuple(digests)
        if not doomed:
            return
        async with self._arrivals.going(doomed):
            await asyncio.to_thread(remove, doomed)
        self.removed += len(doomed)
