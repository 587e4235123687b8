"""What people and guards do with versions: promote, try, roll back, note; and the evaluations that guards need."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from shoal.algorithms import evaluation, measuring
from shoal.core.errors import BadRequest, Conflict, NotFound, ShoalError
from shoal.core.subject import AGAINST, Subject
from shoal.core.tree import encode
from shoal.core.types import ModelVersion
from shoal.rounds import promotion
from shoal.rounds.events import CanaryBegan, Guarded, GuardPublished, Noted, Promoted, Rewound, RolledBack, Unfit
from shoal.rounds.heads import Candidate
from shoal.rounds.state import Phase, TaskState
from shoal.server.running import RunningTask
from shoal.server.storage import Storage
from shoal.server.tasks import Tasks
from shoal.wire.codec import decode_tree
from shoal.wire.messages import (
    HeadsHere,
    HeadsReply,
    LatestReply,
    PromoteRequest,
    RewindRequest,
    RollBackRequest,
    Standing,
    UnfitRequest,
    VersionRecord,
)

NOTE_LETTERS = 2000
NOTES = 1000
REASON_LETTERS = 300

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Promotions:
    """The heads of every task."""

    tasks: Tasks
    storage: Storage
    clock: Callable[[], float]

    async def tick(self) -> None:
        """Do what is due by itself: begin canaries, publish what guards need, read it, promote or roll back."""
        for task in [task for task in self.tasks.values() if not task.stopped]:
            try:
                await self._step(task)
            except ShoalError as error:
                log.error("canary failed, will try again", task=task.task, problem=error.problem)

    async def _step(self, task: RunningTask) -> None:
        candidate = task.state.heads.candidate
        if candidate is None:
            await self._over(_last_guard(task.state))
        elif candidate.measured is None:
            await self._measure(task, candidate)
        due = promotion.next_step(task.state, self.clock())
        if due is None:
            return
        if isinstance(due, Promoted | RolledBack) and candidate is not None:
            await self._over(candidate.guard)  # before anybody is told that the canary is over
        await task.handle(due)

    async def _over(self, name: str) -> None:
        guard = self.tasks.get(name)
        if guard is not None and not guard.state.phase.over:
            await self.tasks.cancel(guard.task, "its canary is over")

    async def _measure(self, task: RunningTask, candidate: Candidate) -> None:
        guard = self._published(task, candidate)
        if guard is None:
            guard = await self._publish(task, candidate)
        if candidate.guard != guard.task:
            await task.handle(GuardPublished(candidate.number, guard.task))
        if guard.state.phase.over:
            await task.handle(self._found(candidate, guard))

    def _published(self, task: RunningTask, candidate: Candidate) -> RunningTask | None:
        if candidate.guard:
            return self.tasks[candidate.guard]
        # a coordinator that died after it published the evaluation finds it here
        subject, name = _subject(task.state, candidate), _name(task.task, candidate)
        same = [other for other in self.tasks.values() if other.state.spec.name == name]
        return next((o for o in same if o.state.spec.subject == subject and not o.state.phase.over), None)

    async def _publish(self, task: RunningTask, candidate: Candidate) -> RunningTask:
        spec, start = measuring.guard(
            _subject(task.state, candidate), _name(task.task, candidate), candidate.canary, candidate.cohort(task.task)
        )
        await asyncio.to_thread(self._keep, encode(start))
        return self.tasks[(await self.tasks.publish(spec)).id]

    def _keep(self, data: bytes) -> None:
        writer = self.storage.blobs.writer("published")
        try:
            writer.write(data)
            self.storage.written(writer.commit())
        finally:
            writer.abort()

    def _found(self, candidate: Candidate, guard: RunningTask) -> Guarded:
        if guard.state.phase is not Phase.FINISHED:
            why = f"{guard.task} {guard.state.phase}: {guard.state.reason}"
            return Guarded(candidate.number, 0.0, 0.0, 0, why)
        tree = decode_tree(b"".join(self.storage.blobs.open(guard.state.latest.digest)))
        try:
            found = evaluation.result(guard.state.spec.columns, tree, guard.state.latest.reports)
        except ShoalError as error:
            return Guarded(candidate.number, 0.0, 0.0, 0, error.problem)
        metric = candidate.canary.metric
        return Guarded(candidate.number, found.metrics[metric], found.metrics[f"{AGAINST}{metric}"], found.rows)

    async def promote(self, task: RunningTask, asked: PromoteRequest, by: str) -> HeadsReply:
        """Let devices serve a version, or try it. Raises NotFound, Conflict while another one is on trial."""
        state, number = task.state, _known(task.state, asked.number)
        event: Promoted | CanaryBegan = Promoted(number, by, asked.reason[:REASON_LETTERS])
        if asked.canary is not None:
            if number == promotion.head(state) or state.heads.candidate is not None:
                candidate = state.heads.candidate
                doing = "is served by all" if candidate is None else f"cannot be tried, {candidate.number} is on trial"
                raise Conflict(f"version {number} of {task.task} {doing}", "roll back or promote that first")
            event = CanaryBegan(number, asked.canary, by)
        former = state.heads.candidate
        await task.handle(event)
        if former is not None:
            await self._over(former.guard)
        return self.heads(task)

    async def roll_back(self, task: RunningTask, asked: RollBackRequest, by: str) -> HeadsReply:
        """Take back the candidate or, without one or with `to`, the head. Raises Conflict when none was before it."""
        state, candidate = task.state, task.state.heads.candidate
        head = promotion.head(state)
        to = promotion.before(state) if asked.to is None else _known(state, asked.to)
        ends = candidate is not None and asked.to is None
        if not ends and (to is None or to == head or to in state.heads.barred):
            wrong = f"version {head} of {task.task} has none to go back to" if to in (None, head) else f"version {to}"
            raise Conflict(f"{wrong}" + (" was rolled back" if to not in (None, head) else ""), "promote another one")
        number = candidate.number if ends and candidate is not None else head
        await task.handle(RolledBack(number, head if ends or to is None else to, by, asked.reason[:REASON_LETTERS]))
        if candidate is not None:
            await self._over(candidate.guard)
        return self.heads(task)

    async def rewind(self, task: RunningTask, asked: RewindRequest, by: str) -> HeadsReply:
        """Let rounds go on from an older version. Raises NotFound, Conflict while one is made or when it is over."""
        number, state = _known(task.state, asked.number), task.state
        if state.phase in (Phase.COMMITTING, Phase.FAILED, Phase.CANCELLED):
            raise Conflict(
                f"task {task.task} is {state.phase}, its rounds cannot go back", "try again, or publish anew"
            )
        await task.handle(Rewound(number, by, asked.reason[:REASON_LETTERS]))
        return self.heads(task)

    async def note(self, task: RunningTask, number: int, text: str, by: str) -> VersionRecord:
        """Write something down about a version. Raises NotFound, BadRequest for a text that is too long or empty."""
        number = _known(task.state, number)
        if not 1 <= len(text.strip()) <= NOTE_LETTERS or len(task.state.heads.notes) >= NOTES:
            raise BadRequest(
                f"a note of {len(text)} letters beside {len(task.state.heads.notes)} others",
                f"write at most {NOTE_LETTERS} letters, and at most {NOTES} notes for a task",
            )
        await task.handle(Noted(number, text, by))
        return self.records(task)[number]

    async def unfit(self, task: RunningTask, device: str, told: UnfitRequest) -> None:
        """Take note that a device keeps the version that it has. Raises NotFound for a version that there is not."""
        found = [version for version in task.state.versions if version.digest == told.version]
        if not found:
            raise NotFound(f"task {task.task} has no version {told.version[:64]}", "tell of one that it made")
        await task.handle(Unfit(found[-1].number, device, told.reason[:REASON_LETTERS]))

    def heads(self, task: RunningTask) -> HeadsReply:
        """Return where a task's heads stand."""
        state = task.state
        candidate = state.heads.candidate.number if state.heads.candidate else None
        head, heads = promotion.head(state), state.heads
        steps, refusals = tuple(heads.steps), tuple(heads.refusals)
        return HeadsReply(task.task, state.base.number, head, candidate, heads.held, steps, refusals)

    def records(self, task: RunningTask) -> list[VersionRecord]:
        """Return every version of a task with its lineage, notes and standing, oldest first."""
        state, numbers = task.state, {version.digest: version.number for version in task.state.versions}
        return [_record(state, version, numbers.get(version.parent)) for version in state.versions]


def latest_for(task: RunningTask, device: str = "") -> LatestReply:
    """Return what a device serves (or what is served where there is no canary), and what rounds train from."""
    state = task.state
    version = promotion.served_by(state, device) if device else state.versions[promotion.head(state)]
    return LatestReply(task.task, version, state.base)


def heads_for(task: RunningTask, device: str) -> HeadsHere:
    """Return the same in few bytes, for the answer to a check-in."""
    served, base = promotion.served_by(task.state, device), task.state.base
    return HeadsHere(task.task, served.number, served.digest, base.number, base.digest)


def _subject(state: TaskState, candidate: Candidate) -> Subject:
    tried, served = state.versions[candidate.number], state.versions[promotion.head(state)]
    return Subject(state.task, state.spec.name, tried.digest, served.digest)


def _last_guard(state: TaskState) -> str:
    # a coordinator that died right after a canary was over has left its evaluation open
    return next((step.reason for step in reversed(state.heads.steps) if step.what == "guard"), "")


def _name(task: str, candidate: Candidate) -> str:
    return f"{task[: measuring.LONGEST - 10]}-guard-{candidate.number}"


def _known(state: TaskState, number: int | None) -> int:
    if number is None:
        return state.latest.number
    if not 0 <= number <= state.latest.number:
        raise NotFound(f"task {state.task} has no version {number}", f"the newest is {state.latest.number}")
    return number


def _record(state: TaskState, version: ModelVersion, parent: int | None) -> VersionRecord:
    heads, number = state.heads, version.number
    standing: Standing = "rolled back" if number in heads.barred else ""
    if heads.candidate is not None and heads.candidate.number == number:
        standing = "candidate"
    if promotion.head(state) == number:
        standing = "served"
    notes = tuple(note for note in heads.notes if note.number == number)
    return VersionRecord(version, number, parent, standing, notes)
