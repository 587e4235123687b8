"""The coordinator apart from HTTP: what it is made of, and the passing of time."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import structlog

from shoal.core.errors import ShoalError
from shoal.server.arrivals import Arrivals
from shoal.server.auth import Identities
from shoal.server.devices import Devices
from shoal.server.housekeeping import Housekeeping
from shoal.server.key import ReceiptKey
from shoal.server.limits import Limits
from shoal.server.metrics import Metrics
from shoal.server.promotions import Promotions
from shoal.server.running import RunningTask
from shoal.server.space import UNMEASURED, Room
from shoal.server.storage import Storage
from shoal.server.summons import Line
from shoal.server.tasks import Tasks
from shoal.server.uploading import Uploading
from shoal.server.variants import Variants
from shoal.store.store import Blobs, Store
from shoal.store.uploads import MemoryUploads, Uploads

SWEEP_SECONDS = 1.0
"""The longest time between two looks at the timers."""

log = structlog.get_logger()


class Coordinator:
    """All tasks of one home, on one event loop. `clock` tells the time in seconds since 1970.

    With `approval` devices without a token may ask to join, and wait until a person says so.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Callable[[], float] = time.time,
        limits: Limits = Limits(),  # noqa: B008  (it is frozen)
        measured: Callable[[], Room] = lambda: UNMEASURED,
        metrics: Metrics | None = None,
        uploads: Uploads | None = None,
        variants: Path | None = None,
        *,
        approval: bool = False,
    ) -> None:
        self.storage = Storage(store, blobs)
        self.metrics = metrics or Metrics()
        self.identities = Identities.load(store, clock(), approval=approval)
        self.key = ReceiptKey.load(store)
        self.clock = clock
        self.bell = Line()
        self.arrivals = Arrivals()
        self.variants = Variants(variants, blobs)
        self.uploading = Uploading(uploads or MemoryUploads())
        self.tasks = Tasks(self.storage, self.arrivals, self.bell, clock, self.metrics, self.key.public)
        self.devices = Devices(self.tasks, self.storage, self.identities, self.bell, clock)
        self.housekeeping = Housekeeping(
            self.storage, self.tasks, self.arrivals, self.identities, clock, limits, measured, self.variants
        )
        self.promotions = Promotions(self.tasks, self.storage, clock)
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load every task and let the time pass."""
        self.tasks.load()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Answer those who wait, drop work under way, close the store."""
        self.bell.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        for task in self.tasks.values():
            await task.close()
        await self._keep_house(self.housekeeping.note())
        self.storage.store.close()

    async def _sweep(self) -> None:
        while True:
            ticked = [await self._tick(task) for task in list(self.tasks.values())]
            await self.promotions.tick()
            await self._keep_house(self.housekeeping.tick())
            await self._keep_house(self.uploading.sweep(self.devices.awaits))
            # what is due and failed is still due: without a pause it would be tried without end
            await self.bell.wait(self._until_next_timer() if all(ticked) else SWEEP_SECONDS)

    async def _tick(self, task: RunningTask) -> bool:
        try:
            await task.tick()
            self.tasks.call(task)
        except ShoalError as error:
            log.error("timer failed", task=task.task, problem=error.problem)
            return False
        return True

    async def _keep_house(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except (ShoalError, OSError) as error:
            log.error("housekeeping failed", problem=str(error))

    def _until_next_timer(self) -> float:
        timers = [timer for task in self.tasks.values() if (timer := task.next_timer()) is not None]
        return min(SWEEP_SECONDS, max(0.0, min(timers) - self.clock())) if timers else SWEEP_SECONDS
