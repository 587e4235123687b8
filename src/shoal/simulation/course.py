"""The course of a simulated task: the real state machine, driven in virtual time, one round after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal.algorithms import registry
from shoal.algorithms.strategy import first_memory, next_version
from shoal.core.errors import Abandoned, NotFinite
from shoal.core.task import WEIGHT_UNIT
from shoal.core.tree import Tree, digest
from shoal.rounds.attendance import Attendance, attend, attendable, parts
from shoal.rounds.effects import Assign, Effect, Fold
from shoal.rounds.events import Cancelled, CheckedIn, Committed, Event, Published, Rejected, Reported, Ticked
from shoal.rounds.state import Phase, TaskState
from shoal.simulation.chunks import chunked
from shoal.simulation.client_store import ClientStore
from shoal.simulation.clients import Source, sizes_of
from shoal.simulation.crew import Crew, Job, Part
from shoal.simulation.selection import Seen
from shoal.train.task import CompiledTask


@dataclass(frozen=True, slots=True)
class Failure:
    """A client that was kept out of a round, and why."""

    round: int
    client: str
    reason: str


@dataclass(slots=True)
class Course:
    """Where a simulated task stands: all that a checkpoint must keep.

    `memory` is the server optimizer's state and the trees that a rule shares. `personal` holds what stays with each
    client, local arrays and a rule's trees; `seen` what it told last.
    """

    state: TaskState
    params: Tree
    memory: Tree
    personal: ClientStore = field(default_factory=ClientStore)
    seen: dict[str, Seen] = field(default_factory=dict[str, Seen])
    failures: list[Failure] = field(default_factory=list[Failure])
    now: float = 0.0

    @property
    def over(self) -> bool:
        """Whether no round is left."""
        return self.state.phase.over

    def stop(self, reason: str) -> None:
        """End the task before its last round."""
        if not self.over:
            self.state.handle(Cancelled(reason), self.now)


def begin(compiled: CompiledTask) -> Course:
    """Return the course of a task before its first round."""
    spec = compiled.spec
    server = registry.server_optimizer(spec.server)
    memory = first_memory(spec.travelling, compiled.initial, server, registry.shared_trees(spec.local))
    return Course(TaskState.begin(Published(spec.name, spec), 0.0), compiled.initial, memory)


def shared(course: Course) -> Tree:
    """Return the part of the memory that clients get with the version."""
    trees = registry.shared_trees(course.state.spec.local)
    return {name: array for name, array in course.memory.items() if name.partition("/")[0] in trees}


def play(
    course: Course, crew: Crew, source: Source, frozen: Tree, names: Sequence[str], chunk: int, *, remember: bool
) -> Part:
    """Carry out one round with these clients, and return what they did; `remember` what they told.

    Raises NotFinite when no client could be trained, Abandoned when the round could not be completed.
    """
    number = course.state.round
    at_once = attendable(course.state, names, course.now)
    jobs = _expected(course, names) if at_once else _assigned(course, names)
    chunks = chunked(jobs, sizes_of(source, [name for name, _, _ in jobs]), chunk)
    part = crew.train(given_to_clients(course, frozen), course.state.spec.local, chunks, course.personal, number)
    if not part.reported:
        raise NotFinite(f"round {number}: no client could be trained", next(iter(part.failures.values()), ""))
    if at_once and not part.failures:
        _attended(course, jobs, part)
    else:
        if at_once:
            _assigned(course, names)
        fold = _reported(course, jobs, part)
        _commit(course, fold, part)
    if remember:
        told = ((name, part.reported[given]) for name, given, _ in jobs if given in part.reported)
        course.seen.update({name: Seen(loss, weight / WEIGHT_UNIT, number) for name, (weight, loss) in told})
    course.personal.update(part.personal)
    course.failures.extend(Failure(number, name, why) for name, why in sorted(part.failures.items()))
    return part


def _expected(course: Course, names: Sequence[str]) -> list[Job]:
    given = parts(course.state, names)
    return [(name, assignment, seed) for name, (assignment, seed) in zip(names, given, strict=True)]


def _attended(course: Course, jobs: Sequence[Job], part: Part) -> None:
    assignments = [assignment for _, assignment, _ in jobs]
    reported = [part.reported[assignment] for assignment in assignments]
    _advance(course, part)
    # nothing here asks for the bytes of one update, so that its own name does for a digest
    attendance = Attendance(
        assignments, assignments, [weight for weight, _ in reported], {"loss": [loss for _, loss in reported]}
    )
    attend(course.state, attendance, _made(course, course.state.round, course.state.attempt), course.now)


def _assigned(course: Course, names: Sequence[str]) -> list[Job]:
    effects = [effect for name in names for effect in course.state.handle(CheckedIn(name), course.now)]
    given = [effect.assignment for effect in effects if isinstance(effect, Assign)]
    return [(assignment.device, assignment.id, assignment.seed) for assignment in given]


def _reported(course: Course, jobs: Sequence[Job], part: Part) -> Fold:
    effects: list[Effect] = []
    for name, assignment, _ in jobs:
        if name in part.failures:
            effects += _take(course, Rejected(assignment, name, NotFinite.code, part.failures[name]))
    for name, assignment, _ in jobs:
        if assignment in part.reported:
            weight, loss = part.reported[assignment]
            effects += _take(course, Reported(assignment, name, assignment, 0, weight, {"loss": loss}))
    folds = [effect for effect in effects if isinstance(effect, Fold)]
    return folds[0] if folds else _at_deadline(course)


def _at_deadline(course: Course) -> Fold:
    """Let time pass until the round closes without those who failed."""
    while course.state.phase is Phase.COLLECTING:
        timer = course.state.next_timer()
        if timer is None:
            break
        course.now = max(course.now, timer)
        for effect in _take(course, Ticked()):
            if isinstance(effect, Fold):
                return effect
    raise Abandoned(f"round {course.state.round} could not be completed", course.state.reason or "see its failures")


def _take(course: Course, event: Event) -> list[Effect]:
    return course.state.handle(event, course.now)


def given_to_clients(course: Course, frozen: Tree) -> Tree:
    """Return all that a client needs of the newest version."""
    return {**frozen, **course.params, **shared(course)}


def advanced(course: Course, combined: Mapping[str, Tree]) -> None:
    """Move a course to its next version, by what its clients' updates were combined to."""
    spec = course.state.spec
    server = registry.server_optimizer(spec.server)
    course.params, course.memory = next_version(spec.travelling, course.params, combined, server, course.memory)


def _commit(course: Course, fold: Fold, part: Part) -> None:
    _advance(course, part)
    _take(course, _made(course, fold.round, fold.attempt))


def _advance(course: Course, part: Part) -> None:
    advanced(course, registry.aggregator(course.state.spec.aggregator).finish(part.total))


def _made(course: Course, number: int, attempt: int) -> Committed:
    return Committed(number, attempt, digest(course.params), digest(course.memory))
