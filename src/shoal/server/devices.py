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
from shoal.rounds.events import CheckedIn, Late, Rejected, Released, Renewed, Reported
from shoal.rounds.pace import Population, lately, meets, retry_after
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

NOBODY = Wait("", "no task here wants this device", RETRY_AFTER)


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
        self.population = Population.of(lately(storage.store.seen()), clock())

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
            return replace(reply, versions=self._served(device.name, request)), held
        return await self._offer(device, request), 0.0

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
        newest = self._tasks.newest
        return tuple([heads_for(newest[name], device) for name in dict.fromkeys(request.training) if name in newest])

    def nothing(self, device: DeviceRecord, request: CheckInRequest) -> CheckInReply | None:
        """Return the answer to a check-in that brings nothing and needs no waiting; None for any other."""
        waits: list[Wait] = []
        for task in self._fitting(device, request):
            wait = task.turned_away(self._offered(device, request, task))
            if wait is None:
                return None
            waits.append(self._paced(wait, task))
        return self._come_back(device, request, waits)

    def _offered(self, device: DeviceRecord, request: CheckInRequest, task: RunningTask) -> CheckedIn:
        separation = task.state.spec.schedule.separation
        return offered(device.name, request, self._apart.elsewhere(device.name, task.task, separation))

    def _come_back(self, device: DeviceRecord, request: CheckInRequest, waits: list[Wait]) -> CheckInReply:
        soonest = min(waits, key=lambda wait: wait.retry_after, default=NOBODY)
        served = self._served(device.name, request)
        return CheckInReply(None, 0.0, soonest.retry_after, soonest.reason, self._clock(), served)

    async def _offer(self, device: DeviceRecord, request: CheckInRequest) -> CheckInReply:
        waits: list[Wait] = []
        for task in self._fitting(device, request):
            for effect in await task.handle(self._offered(device, request, task)):
                match effect:
                    case Assign(assignment, lease):
                        self._tasks.turns.served(device.name, task.task)
                        self._apart.worked(device.name, task.task, self._clock())
                        reached("after_assign")
                        served = self._served(device.name, request)
                        return CheckInReply(assignment, lease, 0.0, "", self._clock(), served)
                    case Wait():
                        waits.append(self._paced(effect, task))
                    case _:
                        pass
        return self._come_back(device, request, waits)

    def _paced(self, wait: Wait, task: RunningTask) -> Wait:
        active, places = self.population.active, task.state.record.places
        if meets(active, places):
            return wait
        draw = share(wait.device, f"{self._clock():.3f}")
        # half of the deadline is left for the work
        seconds = retry_after(wait.retry_after, places, task.state.spec.plan.deadline / 2, active, draw)
        return Wait(wait.device, wait.reason, seconds)

    def _fitting(self, caller: DeviceRecord, request: CheckInRequest) -> list[RunningTask]:
        device, offer = caller.name, Offer(request, caller.scope)
        fitting = {
            name: task
            for name, task in self._tasks.open.items()
            if not task.state.phase.over and fits(task.state.spec, device, offer)
        }
        if len(fitting) < 2:
            return list(fitting.values())
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
