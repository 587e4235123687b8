"""The tasks of a home: found by name, published, ended and told about."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping

from shoal.algorithms import registry
from shoal.core.errors import Conflict, Gone, NotFound, ShoalError
from shoal.core.task import TaskSpec
from shoal.core.types import ModelVersion
from shoal.rounds.events import Cancelled, Extended, Paused, Published, Resumed
from shoal.rounds.fairness import Turns
from shoal.rounds.record import RoundRecord
from shoal.rounds.schedule import check_schedule
from shoal.rounds.state import LeaseState, Phase
from shoal.server.arrivals import Arrivals
from shoal.server.journal import Journal
from shoal.server.metrics import Metrics
from shoal.server.retention import named, updates
from shoal.server.running import RunningTask
from shoal.server.storage import Storage
from shoal.server.summons import Line, Summons
from shoal.server.tallies import Tallies
from shoal.server.verify import check_file
from shoal.wire.messages import MAX_WAIT, TaskStatus, VersionsReply, encode

REFUSED = (LeaseState.RELEASED, LeaseState.REJECTED)
"""What became of work that will not come in this round."""


class Tasks(Mapping[str, RunningTask]):
    """Every task of one home by its id, oldest first, and what people do with them."""

    def __init__(
        self,
        storage: Storage,
        arrivals: Arrivals,
        bell: Line,
        clock: Callable[[], float],
        metrics: Metrics,
        key: str,
    ) -> None:
        self._storage = storage
        self._arrivals = arrivals
        self._bell = bell
        self._clock = clock
        self._metrics = metrics
        self._key = key
        self._running: dict[str, RunningTask] = {}
        self._newest: dict[str, RunningTask] = {}
        self._open: dict[str, RunningTask] = {}
        self._summons: dict[str, Summons] = {}
        self.turns = Turns()
        self.tallies = Tallies()
        self._publishing = asyncio.Lock()

    def __getitem__(self, task: str) -> RunningTask:
        return self._running[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._running)

    def __len__(self) -> int:
        return len(self._running)

    def load(self) -> None:
        """Read every task from the store, and go on with what was interrupted."""
        for stream, epoch in self._storage.store.lead_every().items():
            task = self._made(stream, epoch)
            task.load()
            self.tallies.know(task.state.owners)
            self._keep(task)

    @property
    def newest(self) -> Mapping[str, RunningTask]:
        """The newest task of each name."""
        return self._newest

    @property
    def open(self) -> Mapping[str, RunningTask]:
        """The tasks by id that are not over, as far as is known: what is over may be among them for a moment."""
        return self._open

    def _keep(self, task: RunningTask) -> None:
        self._running[task.task] = self._newest[task.state.spec.name] = task

    def _made(self, stream: str, epoch: int) -> RunningTask:
        journal = Journal(self._metrics, self.tallies, stream, stream.rpartition("-")[0], self._key)
        self._summons[stream] = Summons(self._bell, self._clock)
        return RunningTask(stream, epoch, self._storage, self._clock, self.look, self.forget, journal)

    def look(self, task: RunningTask) -> None:
        """Tell those who follow that a task may have changed, and call the devices that it has places for."""
        if task.state.phase.over:
            self._open.pop(task.task, None)
        else:
            self._open[task.task] = task
        self._bell.ring()
        self.call(task)

    def call(self, task: RunningTask) -> None:
        """Call the devices that a task has places for, which may be because a time has come."""
        if not task.stopped:
            self._summons[task.task].look(task.state)

    def find(self, name: str) -> RunningTask:
        """Return a task by its id, or the newest of a name. Raises NotFound."""
        if name in self._running:
            return self._running[name]
        if name not in self._newest:
            known = ", ".join(self._running) or "none"
            raise NotFound(f"no task {name!r}", f"tasks here: {known}{registry.nearest(name, self._running)}")
        return self._newest[name]

    async def publish(self, spec: TaskSpec) -> TaskStatus:
        """Begin a task; a repeat of the one that runs under its name is the same publish, whose reply was lost.

        Raises Conflict when another one of the same name still runs, NotFound for bytes not yet sent.
        """
        registry.aggregator(spec.aggregator)
        registry.server_optimizer(spec.server)
        registry.check_servable(spec)
        check_schedule(spec.schedule)
        async with contextlib.AsyncExitStack() as kept:
            for digest in sorted(named(spec)):
                await kept.enter_async_context(self._arrivals.coming(digest))
                self.present(digest)
            async with self._publishing:
                return await self._begin(spec)

    async def _begin(self, spec: TaskSpec) -> TaskStatus:
        check_file(await asyncio.to_thread(self._storage.tree, spec.initial), spec.travelling)
        same = [task for task in self._running.values() if task.state.spec.name == spec.name]
        if same and not same[-1].state.phase.over:
            if encode(same[-1].state.spec) == encode(spec):
                return self.status(same[-1])
            raise Conflict(
                f"task {same[-1].task!r} still runs under the name {spec.name!r}", "cancel it or choose another name"
            )
        stream = f"{spec.name}-{len(same) + 1}"
        running = self._made(stream, self._storage.store.lead(stream))
        await running.begin(Published(running.task, spec))
        self._keep(running)
        self.turns.forget(name for name, task in self._running.items() if task.state.phase.over)
        self.look(running)
        return self.status(running)

    async def cancel(self, name: str, reason: str) -> TaskStatus:
        """End a task."""
        task = self.find(name)
        await task.handle(Cancelled(reason))
        return self.status(task)

    async def pause(self, name: str) -> TaskStatus:
        """Hand out no more work of a task, and let no time pass for its round."""
        return await self._told(name, Paused())

    async def resume(self, name: str) -> TaskStatus:
        """Let a paused task go on."""
        return await self._told(name, Resumed())

    async def extend(self, name: str, rounds: int) -> TaskStatus:
        """Let a task have `rounds` rounds altogether. Raises Conflict when it has as many already."""
        state = self.find(name).state
        if rounds < state.spec.rounds or rounds < state.round:
            raise Conflict(f"task {name!r} has {state.spec.rounds} rounds, not fewer than {rounds}", "ask for more")
        return await self._told(name, Extended(rounds))

    async def _told(self, name: str, event: Paused | Resumed | Extended) -> TaskStatus:
        task = self.find(name)
        phase = task.state.phase
        if phase.over and not (isinstance(event, Extended) and phase is Phase.FINISHED):
            raise Conflict(f"task {task.task!r} is {phase}", "publish it again")
        await task.handle(event)
        self.look(task)
        return self.status(task)

    def rounds(self, name: str) -> list[RoundRecord]:
        """Return what happened in each round of a task, the one in progress last."""
        return self.find(name).state.records

    def status(self, task: RunningTask) -> TaskStatus:
        """Return where a task stands."""
        state = task.state
        return TaskStatus(
            id=task.task,
            name=state.spec.name,
            kind=state.spec.kind,
            phase=state.shown,
            round=state.round,
            rounds=state.spec.rounds,
            attempt=state.attempt,
            reports=state.reports,
            goal=state.spec.plan.goal,
            devices=tuple(sorted(d for d, lease in state.leases.items() if lease.state is not LeaseState.LATE)),
            reason=state.reason,
            latest=state.latest,
            refusals={device: lease.reason for device, lease in state.leases.items() if lease.state in REFUSED},
            owners=state.owners,
        )

    async def versions(
        self, name: str, after: int, wait: float, still: Callable[[], None]
    ) -> tuple[VersionsReply, float]:
        """Return the versions after a number, and for how long the call was held for one to come.

        `still` is asked at every turn of the wait, and raises when the caller may call no longer.
        """
        task = self.find(name)
        held = 0.0
        async for waited in self._bell.rings(min(wait, MAX_WAIT)):
            held = waited
            still()
            task.check()
            if task.state.latest.number > after or task.state.phase.over:
                break
        found: tuple[ModelVersion, ...] = tuple(v for v in task.state.versions if v.number > after)
        return VersionsReply(found, self.status(task)), held

    async def forget(self, digests: tuple[str, ...], *, own: int = 0) -> None:
        """Remove the bytes of updates that no open round counts and no report brings (but the caller's `own`)."""
        if any(task.stopped for task in self._running.values()):
            return  # another coordinator may count these bytes
        held = {digest for task in self._running.values() for digest in updates(task.state)}
        unused = tuple(d for d in digests if self._arrivals.count(d) <= own and d not in held)
        async with self._arrivals.going(unused):
            await asyncio.to_thread(self._storage.forget, unused)

    def present(self, digest: str) -> None:
        """Raise Gone when a digest is that of a version which was removed, NotFound when it is unknown."""
        try:
            self._storage.blobs.size(digest)
        except NotFound as error:
            for task in self._running.values():
                for version in task.state.versions:
                    if digest in (version.digest, version.checkpoint):
                        raise _removed(task.task, version.number) from error
            raise


def _removed(task: str, number: int) -> ShoalError:
    return Gone(
        f"version {number} of {task} was removed, to keep only the newest ones",
        "take a newer one; the coordinator keeps more with --keep-versions, and `shoal models pin` keeps one for good",
    )
