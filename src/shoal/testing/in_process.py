"""A whole task in one thread and in virtual time: the real rounds, trainer and algorithms, and nothing else."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from shoal.algorithms import registry, statistics
from shoal.algorithms.buffered import damped
from shoal.algorithms.strategy import first_memory, next_version
from shoal.core.errors import Abandoned, TaskError
from shoal.core.task import TaskSpec, weight_units
from shoal.core.tree import Tree, digest
from shoal.core.types import Assignment, ModelVersion, Update
from shoal.rounds.effects import Assign, Effect, Fold
from shoal.rounds.events import CheckedIn, Committed, Event, Published, Reported, Ticked
from shoal.rounds.state import Phase, TaskState

if TYPE_CHECKING:  # rounds without torch need none
    from shoal.train.data import ClientData
    from shoal.train.task import CompiledTask
    from shoal.train.trainer import Trainer

Versions: TypeAlias = list[tuple[ModelVersion, Tree]]
Work: TypeAlias = Callable[[Assignment, Tree], Update]
"""What a device does with an assignment and the version to start from."""


def run_in_process(compiled: "CompiledTask", owners: "Mapping[str, ClientData]", trainer: "Trainer") -> Versions:
    """Train a task with these owners, by name, and return every version with its arrays, version 0 first.

    Raises Abandoned when the task ends without its last version, TaskError for one whose strategy has a rule of its
    own, which a `Trainer` does not follow: `shoal.simulate` makes the same versions.
    """
    if compiled.spec.local.rule is not None:
        raise TaskError(
            f"task {compiled.spec.name!r} with the local rule {compiled.spec.local.rule.name!r} in one process",
            "use shoal.simulate, which follows it",
        )

    def work(assignment: Assignment, params: Tree) -> Update:
        owner = replace(owners[assignment.device], assignment=assignment.id, seed=assignment.seed)
        plan = compiled.spec.local.at_round(assignment.round)
        (update,) = trainer.train({**compiled.frozen, **params}, plan, [owner])
        return update

    return run_rounds(compiled.spec, compiled.initial, owners, work)


def run_statistics(spec: TaskSpec, tables: Mapping[str, statistics.Floats]) -> Versions:
    """Measure the columns of the owners' tables [rows, columns] and return every version, as `run_in_process`."""

    def work(assignment: Assignment, so_far: Tree) -> Update:
        table = tables[assignment.device]
        released = statistics.measure(table, so_far, assignment.round)
        return Update(assignment.id, released, weight_units(len(table)))

    return run_rounds(spec, statistics.nothing(len(spec.columns)), tables, work)


def run_rounds(spec: TaskSpec, initial: Tree, devices: Iterable[str], work: Work) -> Versions:
    """Drive a task to its end with devices that check in by turns, each doing `work` for what it is assigned."""
    names = list(devices)
    if not names:
        raise Abandoned(f"task {spec.name!r} has no devices", "give it at least one")
    spec = replace(spec, initial=digest(initial))
    run = _Run(TaskState.begin(Published(spec.name, spec), 0.0), work, initial)
    while not run.state.phase.over:
        for name in names:
            run.take(CheckedIn(name))
        run.wait()
    if run.state.phase is not Phase.FINISHED:
        raise Abandoned(f"task {spec.name!r} {run.state.phase}", run.state.reason)
    return [(version, run.trees[version.number]) for version in run.state.versions]


@dataclass
class _Run:
    state: TaskState
    work: Work
    initial: Tree
    now: float = 0.0
    trees: list[Tree] = field(init=False)
    numbers: dict[str, int] = field(init=False)
    updates: dict[str, Update] = field(default_factory=dict[str, Update])

    def __post_init__(self) -> None:
        spec = self.state.spec
        self.trees = [self.initial]
        self.numbers = {spec.initial: 0}
        self.aggregator = registry.aggregator(spec.aggregator)
        self.server = registry.server_optimizer(spec.server)
        shares = registry.shared_trees(spec.local)
        self.memory = first_memory(spec.travelling, self.initial, self.server, shares)

    def take(self, event: Event) -> None:
        for effect in self.state.handle(event, self.now):
            self._carry_out(effect)

    def wait(self) -> None:
        """Let time pass to the next timer, when the round waits for more devices than there are."""
        timer = self.state.next_timer()
        if timer is not None and not self.state.phase.over:
            self.now = timer
            self.take(Ticked())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Assign():
                self._report(effect.assignment)
            case Fold():
                self._fold(effect)
            case _:
                pass

    def _report(self, assignment: Assignment) -> None:
        update = self.work(assignment, self.trees[self.numbers[assignment.version]])
        flat = {f"{tree}/{name}": array for tree, arrays in update.trees.items() for name, array in arrays.items()}
        self.updates[assignment.id] = update
        size = sum(array.nbytes for array in flat.values())
        event = Reported(assignment.id, assignment.device, digest(flat), size, update.weight, update.metrics)
        self.take(event)

    def _fold(self, fold: Fold) -> None:
        spec = self.state.spec
        total = self.aggregator.init(spec)
        for contribution in fold.contributions:
            total = self.aggregator.add(total, self.updates.pop(contribution.assignment))
        start = self.trees[self.numbers[fold.start]] if fold.start else None
        combined = self.aggregator.finish(total)
        delta = damped(spec.travelling, combined["delta"], fold.share, start, self.trees[-1])
        whole = {**combined, "delta": delta}
        params, self.memory = next_version(spec.travelling, self.trees[-1], whole, self.server, self.memory)
        made = digest(params)
        self.numbers[made] = len(self.trees)
        self.trees.append(params)
        self.take(Committed(fold.round, fold.attempt, made, digest(self.memory)))
