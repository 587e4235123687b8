"""One task as the coordinator runs it: its state, the stream that makes it durable, and its effects."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future

import structlog

from shoal.core.errors import ShoalError, StorageFull, StoreError, Superseded, Unavailable
from shoal.rounds.effects import Discard, Effect, Fold, Wait
from shoal.rounds.events import CheckedIn, Committed, Event, Failed, Published, Recorded, Ticked
from shoal.rounds.replay import replay
from shoal.rounds.state import TaskState
from shoal.server.fold import fold
from shoal.server.journal import Journal
from shoal.server.storage import Storage
from shoal.store.events import decode_state, encode_state
from shoal.store.failpoints import reached
from shoal.store.store import Entry
from shoal.wire import tracing

FULL_DISK_SECONDS = 5.0
"""How long to wait before a fold is tried again when the store could not keep its result."""

SNAPSHOT_EVERY = 500
"""Events after which a snapshot spares a restart the replay."""

log = structlog.get_logger()


class RunningTask:
    """Feeds events to a TaskState on the event loop's thread, makes them durable, then lets their effects out.

    The state runs ahead of the disk while appends are under way; no caller hears of an effect before its event, and
    every event before it, is durable. When an append fails the state is read again from the store; as long as that
    fails too, nobody is answered from what may never have happened. `epoch` is that of the lead of the task's stream.
    """

    def __init__(
        self,
        task: str,
        epoch: int,
        storage: Storage,
        clock: Callable[[], float],
        changed: Callable[["RunningTask"], None],
        forget: Callable[[tuple[str, ...]], Awaitable[None]],
        journal: Journal,
    ) -> None:
        self.task = task
        self._storage = storage
        self._clock = clock
        self._changed = changed
        self._forget = forget
        self._journal = journal
        self._epoch = epoch
        self._tail: Future[int] | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._broken = ""
        self._ahead = False
        self._position = 0
        self._snapshot_at = 0
        self.state: TaskState

    async def begin(self, event: Published) -> None:
        """Make a new task durable."""
        now = self._clock()
        self.state = TaskState.begin(event, now)
        await self._append(event, now, {})

    def load(self, pause: float = 0.0) -> None:
        """Read the state from the store and go on, `pause` seconds later, with what a crash interrupted."""
        snapshot = self._storage.store.snapshot(self.task)
        state = decode_state(snapshot[1]) if snapshot else None
        after = snapshot[0] if snapshot else 0
        records = list(self._storage.store.events(self.task, after))
        reached("mid_load")
        self.state = replay((record for _, record in records), state)
        self._position = records[-1][0] if records else after
        self._snapshot_at = after
        self._tail = None
        self._ahead = False
        self._carry_out(self.state.pending(), pause)

    async def handle(self, event: Event, inline: Mapping[str, bytes] | None = None) -> list[Effect]:
        """Take one event; return its effects once they are durable. `inline` holds an update's bytes by digest."""
        self._catch_up()
        self.check()
        now = self._clock()
        before, round_ = self.state.changes, self.state.round
        effects = self.state.handle(event, now)
        changed = self.state.changes != before
        if changed:
            await self._append(event, now, inline or {})
            self._carry_out(effects)
        elif self._tail is not None and not _good(self._tail):
            await asyncio.wrap_future(self._tail)  # also when it is done, and its failure not yet taken up
        self._journal.happened(round_, event, effects, changed)
        return effects

    def turned_away(self, event: CheckedIn) -> Wait | None:
        """Return when a device is to come back that gets no work now; None where `handle` has to be asked."""
        now = self._clock()
        if self._broken or (self._tail is not None and not self._tail.done()):
            return None
        return self.state.turned_away(event, now)

    @property
    def position(self) -> int:
        """How many events the stream has."""
        return self._position

    @property
    def stopped(self) -> bool:
        """Whether the task takes no more events here."""
        return bool(self._broken)

    def check(self) -> None:
        """Raise Unavailable when the task takes no more events here, and what is known about it may be old."""
        if self._broken:
            raise Unavailable(f"task {self.task} stopped here ({self._broken})", "see the coordinator's log")
        if self._ahead:
            raise Unavailable(f"the store of task {self.task} cannot be read", "see the coordinator's log")

    def _catch_up(self) -> None:
        if self._ahead and not self._broken:
            self.load(FULL_DISK_SECONDS)

    async def _append(self, event: Event, now: float, inline: Mapping[str, bytes]) -> None:
        entry = Entry(self.task, [Recorded(now, event)], self._position, self._epoch, inline)
        self._position += 1
        self._tail = tail = self._storage.store.submit(entry)
        try:
            await asyncio.wrap_future(tail)
        except Superseded as error:
            self._give_up(error)
            raise
        except ShoalError:
            if self._tail is tail:
                self._ahead = True
                self.load(FULL_DISK_SECONDS)
            raise

    def _give_up(self, error: Superseded) -> None:
        """Leave the task to the coordinator that leads it now: what this one would say about it may be old."""
        if not self._broken:
            self._broken = "another coordinator leads it now"
            log.error("task left to another coordinator", task=self.task, problem=error.problem)
            self._changed(self)

    def _carry_out(self, effects: list[Effect], pause: float = 0.0) -> None:
        for effect in effects:
            match effect:
                case Fold():
                    self._start(self._fold(effect, pause))
                case Discard(digests):
                    self._start(self._discard(digests))
                case _:
                    pass
        self._changed(self)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and not self._broken and (error := task.exception()) is not None:
            self._broken = f"{type(error).__name__}: {error}"
            log.error("task stopped", task=self.task, exc_info=error)

    async def _fold(self, work: Fold, pause: float) -> None:
        await asyncio.sleep(pause)
        started, traced = time.perf_counter(), self._journal.round(work.round)
        with tracing.part(traced, "fold", reports=len(work.contributions)):
            outcome = await self._outcome(work)
        folded = time.perf_counter()
        reached("before_version")
        try:
            with tracing.part(traced, "commit"):
                await self.handle(outcome)
        except (StoreError, Unavailable) as error:
            # the state was read again, with its fold still to do: that is taken up after a while
            log.error("round not kept", task=self.task, round=work.round, problem=error.problem)
            return
        self._journal.combined(folded - started, time.perf_counter() - started)
        self._traced(traced)
        reached("after_version")

    def _traced(self, of: tracing.Round) -> None:
        for record in reversed(self.state.records):
            if record.round == of.number:
                seconds = record.selecting + record.collecting + record.committing
                tracing.whole(of, seconds, reports=record.reported, outcome=record.outcome)
                return

    async def _outcome(self, work: Fold) -> Committed | Failed:
        while True:
            try:
                folded = await asyncio.to_thread(fold, self.state.spec, work, self._storage)
            except StorageFull as error:
                log.error("disk full, will try again", task=self.task, round=work.round, problem=error.problem)
                await asyncio.sleep(FULL_DISK_SECONDS)
            except ShoalError as error:
                log.error("round failed", task=self.task, round=work.round, problem=error.problem)
                return Failed(work.round, work.attempt, str(error))
            else:
                return Committed(work.round, work.attempt, folded.digest, folded.checkpoint)

    async def _discard(self, digests: tuple[str, ...]) -> None:
        try:
            await self._snapshot()
            reached("before_discard")
            await self._forget(digests)
        except StoreError as error:
            # the rounds go on without it; what stays behind is removed with other orphans
            log.error("updates not deleted", task=self.task, problem=error.problem)
            return
        reached("after_discard")

    async def _snapshot(self) -> None:
        if (self._tail is None or _good(self._tail)) and self._position - self._snapshot_at >= SNAPSHOT_EVERY:
            self._snapshot_at = self._position
            data = encode_state(self.state)
            await asyncio.to_thread(self._storage.store.save_snapshot, self.task, self._position, data)

    async def tick(self) -> None:
        """Let the time pass, if something is due."""
        self._catch_up()
        if not self._broken and self.state.due(self._clock()):
            await self.handle(Ticked())

    def next_timer(self) -> float | None:
        """Return the earliest time at which something is due, or None."""
        return None if self._broken else self.state.next_timer()

    async def close(self) -> None:
        """Drop work under way; a restart takes it up again."""
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)


def _good(tail: Future[int]) -> bool:
    return tail.done() and tail.exception() is None
