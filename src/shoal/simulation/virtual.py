"""Rounds over a population in virtual time: who reports is decided by the crowd, what is reported is really trained.

A client is trained when its report is due, together with all others at work on the same version; those who vanish or
come too late are not trained for nothing. Which updates a version sums, late ones and stale ones too, is what the state
machine orders.
"""

from dataclasses import dataclass, field, replace

from shoal.algorithms import registry
from shoal.algorithms.buffered import damped
from shoal.algorithms.stacked import refusals
from shoal.core.errors import Abandoned, NotFinite
from shoal.core.tree import Tree, digest
from shoal.core.types import Assignment, Update
from shoal.rounds.effects import Fold
from shoal.rounds.events import Committed, Rejected, Reported
from shoal.simulation.clients import Source, load, sizes_of
from shoal.simulation.course import Course, Failure, advanced, given_to_clients
from shoal.simulation.crew import explained
from shoal.simulation.crowd import Crowd, Work
from shoal.simulation.population import Population
from shoal.train.cohort import CohortTrainer


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """What came of one client's training: its update and what stays with it, or why there is none."""

    update: Update | None
    reason: str = ""
    personal: Tree = field(default_factory=dict)


class VirtualRounds:
    """Drives a course by a crowd, one version at a time."""

    def __init__(
        self,
        course: Course,
        population: Population,
        source: Source,
        trainer: CohortTrainer,
        frozen: Tree,
        chunk: int,
    ) -> None:
        self._course = course
        self._source = source
        self._trainer = trainer
        self._frozen = frozen
        self._chunk = chunk
        self._versions: dict[str, Tree] = {}
        self._results: dict[str, _Result] = {}
        self._failures: list[Failure] = []
        work = Work(self._rows, self._finished, self._combined)
        self.crowd = Crowd(course.state, population, source.names, course.state.spec.seed, work)
        self._keep_version()

    def play(self) -> list[Failure]:
        """Go on until there is one version more, and return the clients that were kept out meanwhile.

        Raises Abandoned when the task ends without it.
        """
        before, self._failures = self.crowd.versions, []
        while self.crowd.versions == before and not self.crowd.over:
            self.crowd.step()
        self._course.now = self.crowd.now
        if self.crowd.versions == before:
            raise Abandoned(f"round {self._course.state.round} could not be completed", self._course.state.reason)
        self._course.failures.extend(self._failures)
        return self._failures

    def _rows(self, device: int) -> float:
        name = self._source.names[device]
        sizes = sizes_of(self._source, [name])
        if sizes is not None:
            return sizes[0]
        (client,) = load(self._source, [(name, "", 0)])
        return client.rows

    def _finished(self, part: Assignment) -> Reported | Rejected:
        if part.id not in self._results:
            self._train(part)
        result = self._results[part.id]
        if result.update is None:
            self._failures.append(Failure(part.round, part.device, result.reason))
            del self._results[part.id]
            return Rejected(part.id, part.device, NotFinite.code, result.reason)
        if result.personal:
            self._course.personal[part.device] = result.personal
        metrics = {"loss": result.update.metrics["loss"]}
        return Reported(part.id, part.device, part.id, 0, result.update.weight, metrics)

    def _train(self, part: Assignment) -> None:
        """Train a client and those who are at work on the same version, as many as are trained at once."""
        others = [
            other
            for other in self.crowd.at_work()
            if other.version == part.version and other.id != part.id and other.id not in self._results
        ]
        parts = [part, *others[: self._chunk - 1]]
        clients = load(self._source, [(each.device, each.id, each.seed) for each in parts])
        plan = self._course.state.spec.local
        trained = self._trainer.train_cohort(
            self._versions[part.version], plan, clients, self._course.personal, part.round
        )
        by_name = {client.name: client for client in clients}
        for name, why in trained.failures.items():
            self._results[by_name[name].assignment] = _Result(None, explained(by_name[name], why))
        if trained.updates is None:
            return
        refused = refusals(self._course.state.spec, trained.updates)
        for row, position in enumerate(trained.positions):
            client = clients[position]
            self._results[client.assignment] = (
                _Result(None, explained(client, f"client {client.name!r}: {refused[row]}"))
                if row in refused
                else _Result(trained.updates.update(row), "", trained.personal.get(client.name, {}))
            )

    def _combined(self, fold: Fold) -> Committed:
        course = self._course
        spec = course.state.spec
        aggregator = registry.aggregator(spec.aggregator)
        total = aggregator.init(spec)
        for given in fold.contributions:
            update = self._results.pop(given.assignment).update
            assert update is not None
            total = aggregator.add(total, replace(update, weight=given.weight))
        combined = dict(aggregator.finish(total))
        start = self._versions[fold.start] if fold.start else None
        combined["delta"] = damped(spec.travelling, combined["delta"], fold.share, start, course.params)
        advanced(course, combined)
        self._keep_version()
        return Committed(fold.round, fold.attempt, digest(course.params), digest(course.memory))

    def _keep_version(self) -> None:
        """Keep the newest version, and of the older ones those that somebody still works on."""
        course = self._course
        wanted = {part.version for part in self.crowd.at_work()}
        kept = {name: tree for name, tree in self._versions.items() if name in wanted}
        newest = given_to_clients(course, self._frozen)
        self._versions = {**kept, digest(course.params): newest}
        live = {part.id for part in self.crowd.at_work()} | {each.assignment for each in course.state.buffer}
        self._results = {name: result for name, result in self._results.items() if name in live}
