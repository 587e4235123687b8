"""The coordinator's work apart from HTTP: tasks, check-ins, reports, and the passing of time."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

import structlog

from shoal.algorithms import registry
from shoal.core.errors import Conflict, Gone, NotFound, RefusedUpdate, ShoalError, from_code
from shoal.core.receipt import Receipt
from shoal.core.schedule import DAY
from shoal.core.task import TaskSpec
from shoal.core.types import ModelVersion
from shoal.rounds.answers import repeated
from shoal.rounds.effects import Accept, Assign, Effect, Extend, Refuse, Wait
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Extended,
    Late,
    Paused,
    Published,
    Rejected,
    Released,
    Renewed,
    Reported,
    Resumed,
)
from shoal.rounds.fairness import Turns
from shoal.rounds.pace import Population, retry_after
from shoal.rounds.record import RoundRecord
from shoal.rounds.schedule import check_cron, share
from shoal.rounds.state import RETRY_AFTER, LeaseState, Phase
from shoal.server.arrivals import Arrivals
from shoal.server.auth import Identities
from shoal.server.bell import Bell
from shoal.server.housekeeping import Housekeeping
from shoal.server.journal import Journal
from shoal.server.limits import Limits
from shoal.server.metrics import Metrics
from shoal.server.retention import updates
from shoal.server.running import RunningTask
from shoal.server.space import UNMEASURED, Room
from shoal.server.storage import Storage, TreeFile
from shoal.server.verify import check_file, check_report
from shoal.store.failpoints import reached
from shoal.store.store import Blobs, DeviceRecord, Store
from shoal.wire.messages import (
    MAX_WAIT,
    CheckInReply,
    CheckInRequest,
    ReportHead,
    TaskStatus,
    VersionsReply,
)

SWEEP_SECONDS = 1.0
"""The longest time between two looks at the timers."""

log = structlog.get_logger()


class Coordinator:
    """All tasks of one home, on one event loop. `clock` tells the time in seconds since 1970."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Callable[[], float] = time.time,
        limits: Limits = Limits(),  # noqa: B008  (it is frozen)
        measured: Callable[[], Room] = lambda: UNMEASURED,
        metrics: Metrics | None = None,
    ) -> None:
        self.storage = Storage(store, blobs)
        self.metrics = metrics or Metrics()
        self.identities = Identities.load(store)
        self.clock = clock
        self.bell = Bell()
        self.tasks: dict[str, RunningTask] = {}
        self.arrivals = Arrivals()
        self._turns = Turns()
        self._population = Population.of(store.seen(), clock())
        self.housekeeping = Housekeeping(
            self.storage, self.tasks, self.arrivals, self.identities, clock, limits, measured
        )
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load every task and let the time pass."""
        for stream in self.storage.store.streams():
            task = self._running(stream)
            task.load()
            self.tasks[stream] = task
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

    def _running(self, stream: str) -> RunningTask:
        journal = Journal(self.metrics, stream, stream.rpartition("-")[0])
        return RunningTask(stream, self.storage, self.clock, self.bell.ring, self.forget, journal)

    async def _sweep(self) -> None:
        while True:
            ticked = [await self._tick(task) for task in list(self.tasks.values())]
            await self._keep_house(self.housekeeping.tick())
            # what is due and failed is still due: without a pause it would be tried without end
            await self.bell.wait(self._until_next_timer() if all(ticked) else SWEEP_SECONDS)

    async def _tick(self, task: RunningTask) -> bool:
        try:
            await task.tick()
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

    # Tasks

    def task(self, name: str) -> RunningTask:
        """Return a task by its id, or the newest of a name. Raises NotFound."""
        if name in self.tasks:
            return self.tasks[name]
        named = [task for task in self.tasks.values() if task.state.spec.name == name]
        if not named:
            known = ", ".join(self.tasks) or "none"
            raise NotFound(f"no task {name!r}", f"tasks here: {known}{registry.nearest(name, self.tasks)}")
        return named[-1]

    async def publish(self, spec: TaskSpec) -> TaskStatus:
        """Begin a task. Raises Conflict when one of the same name still runs, NotFound for bytes not yet sent."""
        registry.aggregator(spec.aggregator)
        registry.server_optimizer(spec.server)
        check_cron(spec.schedule)
        async with contextlib.AsyncExitStack() as kept:
            for digest in sorted({spec.initial, spec.frozen, spec.golden} - {""}):
                await kept.enter_async_context(self.arrivals.coming(digest))
                self.housekeeping.present(digest)
            return await self._begin(spec)

    async def _begin(self, spec: TaskSpec) -> TaskStatus:
        check_file(await asyncio.to_thread(self.storage.tree, spec.initial), spec.travelling)
        same = [task for task in self.tasks.values() if task.state.spec.name == spec.name]
        if same and not same[-1].state.phase.over:
            raise Conflict(
                f"task {same[-1].task!r} still runs under the name {spec.name!r}", "cancel it or choose another name"
            )
        running = self._running(f"{spec.name}-{len(same) + 1}")
        await running.begin(Published(running.task, spec))
        self.tasks[running.task] = running
        self._turns.forget(name for name, task in self.tasks.items() if task.state.phase.over)
        self.bell.ring()
        return self.status(running)

    async def cancel(self, name: str, reason: str) -> TaskStatus:
        """End a task."""
        task = self.task(name)
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
        state = self.task(name).state
        if rounds < state.spec.rounds or rounds < state.round:
            raise Conflict(f"task {name!r} has {state.spec.rounds} rounds, not fewer than {rounds}", "ask for more")
        return await self._told(name, Extended(rounds))

    async def _told(self, name: str, event: Paused | Resumed | Extended) -> TaskStatus:
        task = self.task(name)
        phase = task.state.phase
        if phase.over and not (isinstance(event, Extended) and phase is Phase.FINISHED):
            raise Conflict(f"task {task.task!r} is {phase}", "publish it again")
        await task.handle(event)
        self.bell.ring()
        return self.status(task)

    def rounds(self, name: str) -> list[RoundRecord]:
        """Return what happened in each round of a task, the one in progress last."""
        return self.task(name).state.records

    def status(self, task: RunningTask) -> TaskStatus:
        """Return where a task stands."""
        state = task.state
        resting = state.paused is not None and not state.phase.over
        return TaskStatus(
            id=task.task,
            name=state.spec.name,
            kind=state.spec.kind,
            phase="paused" if resting else state.phase.value,
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

    async def versions(self, name: str, after: int, wait: float) -> tuple[VersionsReply, float]:
        """Return the versions after a number, and for how long the call was held for one to come."""
        task = self.task(name)
        held = 0.0
        async for waited in self.bell.rings(min(wait, MAX_WAIT)):
            held = waited
            task.check()
            if task.state.latest.number > after or task.state.phase.over:
                break
        found: tuple[ModelVersion, ...] = tuple(v for v in task.state.versions if v.number > after)
        return VersionsReply(found, self.status(task)), held

    # Devices

    async def check_in(self, device: DeviceRecord, request: CheckInRequest) -> tuple[CheckInReply, float]:
        """Return an assignment, or none after `request.wait` seconds; and for how long the call was held."""
        held = 0.0
        self._population.arrived(device.name, self.clock())
        reply = self._nothing(RETRY_AFTER, "no task here wants this device")
        async for waited in self.bell.rings(min(request.wait, MAX_WAIT)):
            held = waited
            reply = await self._offer(device, request)
            if reply.assignment is not None:
                break
        return reply, held

    def _nothing(self, retry_after: float, reason: str) -> CheckInReply:
        return CheckInReply(None, 0.0, retry_after, reason, self.clock())

    async def _offer(self, device: DeviceRecord, request: CheckInRequest) -> CheckInReply:
        waits: list[Wait] = []
        offer = CheckedIn(device.name, _offset(request))
        for task in self._fitting(device.name, request):
            for effect in await task.handle(offer):
                match effect:
                    case Assign(assignment, lease):
                        self._turns.served(device.name, task.task)
                        reached("after_assign")
                        return CheckInReply(assignment, lease, 0.0, "", self.clock())
                    case Wait():
                        waits.append(self._paced(effect, task))
                    case _:
                        pass
        if not waits:
            return self._nothing(RETRY_AFTER, "no task here wants this device")
        soonest = min(waits, key=lambda wait: wait.retry_after)
        return self._nothing(soonest.retry_after, soonest.reason)

    def _paced(self, wait: Wait, task: RunningTask) -> Wait:
        now, plan = self.clock(), task.state.spec.plan
        draw = share(wait.device, f"{now:.3f}")
        # half of the deadline is left for the work
        seconds = retry_after(
            wait.retry_after, task.state.record.places, plan.deadline / 2, self._population.active, draw
        )
        return replace(wait, retry_after=seconds)

    def _fitting(self, device: str, request: CheckInRequest) -> list[RunningTask]:
        fitting = {
            name: task
            for name, task in self.tasks.items()
            if not task.state.phase.over and _fits(task.state.spec, request)
        }
        # a device that has work already gets it again, whichever task is served next
        held = [name for name, task in fitting.items() if _at_work(task, device)]
        return [fitting[name] for name in (*held, *(t for t in self._turns.order(device, fitting) if t not in held))]

    def assigned(self, device: DeviceRecord, assignment: str) -> RunningTask:
        """Return the task that an assignment of this device belongs to. Raises Gone when no task knows it now."""
        for task in self.tasks.values():
            if task.state.remembers(assignment, device.name):
                return task
        for task in self.tasks.values():
            if self.storage.store.accepted(task.task, assignment, device.name) is not None:
                return task
        raise Gone(f"assignment {assignment} is not open for {device.name!r}", "drop it and check in again")

    async def expected(self, device: DeviceRecord, assignment: str) -> tuple[RunningTask, Receipt | None]:
        """Return the task that a report is for, and the receipt if it was accepted before.

        Raises Gone, before a byte of the update is read, when its round takes it no more.
        """
        task = self.assigned(device, assignment)
        await task.tick()
        if task.state.expects(assignment, device.name, self.clock()):
            return task, None
        given = task.state.receipt(assignment)
        given = given or self.storage.store.accepted(task.task, assignment, device.name)
        if given is None:
            raise await self._late(task, device, assignment)
        return task, given

    async def _late(self, task: RunningTask, device: DeviceRecord, assignment: str) -> Gone:
        await task.handle(Late(assignment, device.name))
        return Gone(
            f"assignment {assignment} has no place in round {task.state.round} of {task.task}",
            "drop it and check in again",
        )

    async def forget(self, digests: tuple[str, ...], *, own: int = 0) -> None:
        """Remove the bytes of updates that no open round counts and no report brings (but the caller's `own`)."""
        if any(task.stopped for task in self.tasks.values()):
            return  # another coordinator may count these bytes
        held = {digest for task in self.tasks.values() for digest in updates(task.state)}
        unused = tuple(d for d in digests if self.arrivals.count(d) <= own and d not in held)
        async with self.arrivals.going(unused):
            await asyncio.to_thread(self.storage.forget, unused)

    async def report(
        self, device: DeviceRecord, assignment: str, head: ReportHead, file: TreeFile, inline: bytes | None
    ) -> Receipt:
        """Count a report whose bytes are here (`inline`, or a blob that is durable already).

        Raises RefusedUpdate, Gone, or Conflict with the receipt of the first report.
        """
        task, given = await self.expected(device, assignment)
        if given is None:
            try:
                await _verify(task.state.spec, head, file)
            except RefusedUpdate as error:
                await task.handle(Rejected(assignment, device.name, error.code, str(error)))
                raise
        reached("before_accept")
        event = Reported(
            assignment, device.name, head.digest, head.size, head.weight, dict(head.metrics), head.costs, head.origin
        )
        if given is not None and task.state.receipt(assignment) is None:
            return _receipt([repeated(given, event)])
        effects = await task.handle(event, {head.digest: inline} if inline is not None else None)
        reached("after_accept")
        if any(isinstance(effect, Refuse) and effect.code == Gone.code for effect in effects):
            raise await self._late(task, device, assignment)
        return _receipt(effects)

    async def dismiss(self, device: DeviceRecord, reason: str) -> None:
        """Let a device go: its places are free at once, and it is revoked."""
        self.identities.leave(device, self.clock())
        for task in self.tasks.values():
            lease = task.state.leases.get(device.name)
            if lease is not None and lease.state is LeaseState.OFFERED:
                await task.handle(Released(lease.assignment.id, device.name, reason))

    async def renew(self, device: DeviceRecord, assignment: str) -> float:
        """Extend a lease and return until when."""
        task = self.assigned(device, assignment)
        for effect in await task.handle(Renewed(assignment, device.name)):
            match effect:
                case Extend(_, until):
                    return until
                case Refuse():
                    raise from_code(effect.code, effect.problem, effect.fix)
                case _:
                    pass
        raise Gone(f"assignment {assignment} is over", "drop it and check in again")

    async def release(self, device: DeviceRecord, assignment: str, reason: str) -> None:
        """Take a place back; one that is gone already is no error."""
        with contextlib.suppress(Gone):
            task = self.assigned(device, assignment)
            await task.handle(Released(assignment, device.name, reason[:500]))


def _offset(request: CheckInRequest) -> float:
    # what a device says of its clock only moves windows, by a day at most
    return request.utc_offset if abs(request.utc_offset) <= DAY else 0.0


def _at_work(task: RunningTask, device: str) -> bool:
    lease = task.state.leases.get(device)
    return lease is not None and lease.state is LeaseState.OFFERED


def _fits(spec: TaskSpec, request: CheckInRequest) -> bool:
    if spec.kind == "training":
        return spec.name in request.training
    if spec.kind == "evaluation":
        return request.evaluation and spec.subject is not None and spec.subject.name in request.training
    return request.statistics and (not spec.checks or spec.checks in request.training)


REFUSED = (LeaseState.RELEASED, LeaseState.REJECTED)
"""What became of work that will not come in this round."""


async def _verify(spec: TaskSpec, head: ReportHead, file: TreeFile) -> None:
    if head.size <= INLINE_BYTES:
        check_report(spec, head, file)
    else:
        await asyncio.to_thread(check_report, spec, head, file)


INLINE_BYTES = 64 << 10
"""Updates up to this size lie in the database, in the transaction of their event; larger ones are blobs."""


def _receipt(effects: list[Effect]) -> Receipt:
    for effect in effects:
        match effect:
            case Accept(receipt):
                return receipt
            case Refuse():
                error = from_code(effect.code, effect.problem, effect.fix)
                if isinstance(error, Conflict):
                    error.receipt = effect.receipt
                raise error
            case _:
                pass
    raise Gone("the task ended before the report", "drop it and check in again")
