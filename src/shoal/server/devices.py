"""What devices do with tasks: check in, report, keep a place or give it back."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from shoal.core.errors import Conflict, Gone, RefusedUpdate, from_code
from shoal.core.receipt import Receipt
from shoal.core.task import TaskSpec
from shoal.rounds.answers import repeated
from shoal.rounds.effects import Accept, Assign, Effect, Extend, Refuse, Wait
from shoal.rounds.events import Late, Rejected, Released, Renewed, Reported
from shoal.rounds.pace import Population, retry_after
from shoal.rounds.schedule import share
from shoal.rounds.state import RETRY_AFTER, LeaseState
from shoal.server.apart import Apart
from shoal.server.auth import Identities
from shoal.server.promotions import heads_for
from shoal.server.running import RunningTask
from shoal.server.storage import Storage, TreeFile
from shoal.server.summons import Line, Offer, fits, offered
from shoal.server.tasks import Tasks
from shoal.server.verify import check_report
from shoal.store.failpoints import reached
from shoal.store.store import DeviceRecord
from shoal.store.uploads import Upload
from shoal.wire.messages import MAX_WAIT, CheckInReply, CheckInRequest, HeadsHere, ReleaseRequest, ReportHead

INLINE_BYTES = 64 << 10
"""Updates up to this size lie in the database, in the transaction of their event; larger ones are blobs."""


class Devices:
    """The devices' side of the tasks of one home."""

    def __init__(
        self, tasks: Tasks, storage: Storage, identities: Identities, bell: Line, clock: Callable[[], float]
    ) -> None:
        self._tasks = tasks
        self._storage = storage
        self._identities = identities
        self._bell = bell
        self._clock = clock
        self._apart = Apart(tasks, storage)
        self.population = Population.of(storage.store.seen(), clock())

    async def check_in(
        self, device: DeviceRecord, request: CheckInRequest, still: Callable[[], None]
    ) -> tuple[CheckInReply, float]:
        """Return an assignment, or none after `request.wait` seconds; and for how long the call was held.

        `still` is asked when a held call wakes, and raises when the device may call no longer.
        """
        self.population.arrived(device.name, self._clock())
        seconds = min(request.wait, MAX_WAIT)
        if seconds > 0:
            reply, held = await self._stand_by(device, request, seconds, still)
        else:
            reply, held = await self._offer(device, request), 0.0
        return replace(reply, versions=self._served(device.name, request)), held

    async def _stand_by(
        self, device: DeviceRecord, request: CheckInRequest, seconds: float, still: Callable[[], None]
    ) -> tuple[CheckInReply, float]:
        waited = 0.0
        with self._bell.in_line(device.name, Offer(replace(request, wait=0.0), device.scope)) as place:
            while True:
                place.called.clear()
                reply = await self._offer(device, request)
                if reply.assignment is not None or place.over:
                    return reply, waited
                held = await self._bell.called(place, seconds - waited)
                still()
                if held is None or place.over:
                    return reply, seconds if held is None else waited + held
                waited += held

    def _served(self, device: str, request: CheckInRequest) -> tuple[HeadsHere, ...]:
        named = ((task.state.spec.name, task) for task in self._tasks.values())
        newest = {name: task for name, task in named if name in request.training}
        return tuple(heads_for(task, device) for task in newest.values())

    def _nothing(self, retry_after: float, reason: str) -> CheckInReply:
        return CheckInReply(None, 0.0, retry_after, reason, self._clock())

    async def _offer(self, device: DeviceRecord, request: CheckInRequest) -> CheckInReply:
        waits: list[Wait] = []
        for task in self._fitting(device, request):
            separation = task.state.spec.schedule.separation
            elsewhere = self._apart.elsewhere(device.name, task.task, separation)
            offer = offered(device.name, request, elsewhere)
            for effect in await task.handle(offer):
                match effect:
                    case Assign(assignment, lease):
                        self._tasks.turns.served(device.name, task.task)
                        self._apart.worked(device.name, task.task, self._clock())
                        reached("after_assign")
                        return CheckInReply(assignment, lease, 0.0, "", self._clock())
                    case Wait():
                        waits.append(self._paced(effect, task))
                    case _:
                        pass
        if not waits:
            return self._nothing(RETRY_AFTER, "no task here wants this device")
        soonest = min(waits, key=lambda wait: wait.retry_after)
        return self._nothing(soonest.retry_after, soonest.reason)

    def _paced(self, wait: Wait, task: RunningTask) -> Wait:
        now, plan = self._clock(), task.state.spec.plan
        draw = share(wait.device, f"{now:.3f}")
        # half of the deadline is left for the work
        seconds = retry_after(
            wait.retry_after, task.state.record.places, plan.deadline / 2, self.population.active, draw
        )
        return replace(wait, retry_after=seconds)

    def _fitting(self, caller: DeviceRecord, request: CheckInRequest) -> list[RunningTask]:
        device = caller.name
        fitting = {
            name: task
            for name, task in self._tasks.items()
            if not task.state.phase.over and fits(task.state.spec, device, Offer(request, caller.scope))
        }
        # a device that has work already gets it again, whichever task is served next
        held = [name for name, task in fitting.items() if _at_work(task, device)]
        return [
            fitting[name] for name in (*held, *(t for t in self._tasks.turns.order(device, fitting) if t not in held))
        ]

    def assigned(self, device: DeviceRecord, assignment: str) -> RunningTask:
        """Return the task that an assignment of this device belongs to. Raises Gone when no task knows it now."""
        for task in self._tasks.values():
            if task.state.remembers(assignment, device.name):
                return task
        for task in self._tasks.values():
            if self._storage.store.accepted(task.task, assignment, device.name) is not None:
                return task
        raise Gone(f"assignment {assignment} is not open for {device.name!r}", "drop it and check in again")

    async def expected(self, device: DeviceRecord, assignment: str) -> tuple[RunningTask, Receipt | None]:
        """Return the task that a report is for, and the receipt if it was accepted before.

        Raises Gone, before a byte of the update is read, when its round takes it no more.
        """
        task = self.assigned(device, assignment)
        await task.tick()
        if task.state.expects(assignment, device.name, self._clock()):
            return task, None
        given = task.state.receipt(assignment)
        given = given or self._storage.store.accepted(task.task, assignment, device.name)
        if given is None:
            raise await self._late(task, device, assignment)
        return task, given

    async def _late(self, task: RunningTask, device: DeviceRecord, assignment: str) -> Gone:
        await task.handle(Late(assignment, device.name))
        return Gone(
            f"assignment {assignment} has no place in round {task.state.round} of {task.task}",
            "drop it and check in again",
        )

    async def report(
        self, device: DeviceRecord, assignment: str, head: ReportHead, file: TreeFile | None, inline: bytes | None
    ) -> Receipt:
        """Count a report whose bytes are here (`inline`, or a blob that is durable already; no file for a repeat).

        Raises RefusedUpdate, Gone, or Conflict with the receipt of the first report.
        """
        task, given = await self.expected(device, assignment)
        if given is None and file is not None:
            try:
                await _verify(task.state.spec, head, file)
            except RefusedUpdate as error:
                await task.handle(Rejected(assignment, device.name, error.code, str(error)))
                raise
        self._identities.check(device, self._clock())  # it may have been revoked while its bytes came
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

    async def dismiss(self, name: str, reason: str) -> DeviceRecord:
        """Let a device go: it is revoked, its held calls end, its places are free at once. Raises NotFound."""
        device = await self._identities.revoke(name, self._clock())
        self._bell.dismiss(name)
        for task in self._tasks.values():
            lease = task.state.leases.get(device.name)
            if lease is not None and lease.state is LeaseState.OFFERED:
                await task.handle(Released(lease.assignment.id, device.name, reason))
        return device

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

    async def progressed(self, device: DeviceRecord, assignment: str) -> None:
        """Extend a lease of which half is over, because bytes of its update arrived."""
        task = self.assigned(device, assignment)
        lease = task.state.leases.get(device.name)
        half = task.state.spec.plan.lease / 2
        if lease is not None and lease.state is LeaseState.OFFERED and lease.expires - self._clock() < half:
            await self.renew(device, assignment)

    def awaits(self, upload: Upload) -> bool:
        """Whether the report of an upload may still come; not known of a task that another coordinator leads."""
        now = self._clock()
        return any(
            task.stopped or task.state.expects(upload.assignment, upload.device, now) for task in self._tasks.values()
        )

    async def release(self, device: DeviceRecord, assignment: str, told: ReleaseRequest) -> None:
        """Take a place back; one that is gone already is no error."""
        with contextlib.suppress(Gone):
            task = self.assigned(device, assignment)
            await task.handle(Released(assignment, device.name, told.reason[:500], told.again))


def _at_work(task: RunningTask, device: str) -> bool:
    lease = task.state.leases.get(device)
    return lease is not None and lease.state is LeaseState.OFFERED


async def _verify(spec: TaskSpec, head: ReportHead, file: TreeFile) -> None:
    if head.size <= INLINE_BYTES:
        check_report(spec, head, file)
    else:
        await asyncio.to_thread(check_report, spec, head, file)


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
