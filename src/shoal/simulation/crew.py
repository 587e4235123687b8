"""Who trains a round's clients: this process. What it gives back is one sum, whatever the number of clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from shoal.algorithms import registry
from shoal.algorithms.aggregator import Aggregator
from shoal.algorithms.stacked import fold, refusals
from shoal.core.task import LocalPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.simulation.clients import Source, loaded
from shoal.train.cohort import CohortTrainer, Trained
from shoal.train.data import ClientData

Job: TypeAlias = tuple[str, str, int]
"""A client's name, its assignment and its seed."""

Chunk: TypeAlias = Sequence[Job]
"""Clients that are trained at once."""


@dataclass(slots=True)
class Part:
    """The sum of some clients' updates, and what each of them did: `reported` holds (weight, loss) by assignment.

    `failures` says why others could not be trained or were refused, `personal` their local arrays, both by name.
    """

    total: Any
    reported: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    failures: dict[str, str] = field(default_factory=dict[str, str])
    personal: dict[str, Tree] = field(default_factory=dict[str, Tree])


class Crew(Protocol):
    """Trains the chunks of a round and sums their updates."""

    def train(
        self, params: Tree, plan: LocalPlan, chunks: Sequence[Chunk], personal: Mapping[str, Tree], round: int
    ) -> Part:
        """Train every client of every chunk from `params`, which holds the frozen arrays too."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Alone:
    """Trains in this process, one chunk after the other."""

    def __init__(self, trainer: CohortTrainer, source: Source, spec: TaskSpec) -> None:
        self._trainer = trainer
        self._source = source
        self._spec = spec
        self._aggregator: Aggregator[Any] = registry.aggregator(spec.aggregator)

    def train(
        self, params: Tree, plan: LocalPlan, chunks: Sequence[Chunk], personal: Mapping[str, Tree], round: int
    ) -> Part:
        """Train the chunks in turn."""
        return self.add(None, params, plan, chunks, personal, round)

    def add(
        self,
        part: Part | None,
        params: Tree,
        plan: LocalPlan,
        chunks: Sequence[Chunk],
        personal: Mapping[str, Tree],
        round: int,
    ) -> Part:
        """Train the chunks in turn and count them into a part."""
        part = part or Part(self._aggregator.init(self._spec))
        for chunk in chunks:
            for clients in loaded(self._source, chunk):
                self._count(part, clients, self._trainer.train_cohort(params, plan, clients, personal, round))
        return part

    def close(self) -> None:
        """Nothing was started."""

    def _count(self, part: Part, clients: Sequence[ClientData], trained: Trained) -> None:
        by_name = {client.name: client for client in clients}
        part.failures.update({name: explained(by_name[name], why) for name, why in trained.failures.items()})
        if trained.updates is None:
            return
        updates = trained.updates
        refused = refusals(self._spec, updates)
        for index, why in refused.items():
            name = clients[trained.positions[index]].name
            part.failures[name] = explained(by_name[name], f"client {name!r}: {why}")
        if refused:
            updates = updates.take([index for index in range(len(updates)) if index not in refused])
        part.personal.update({name: own for name, own in trained.personal.items() if name not in part.failures})
        part.total = fold(self._aggregator, part.total, updates)
        outcomes = zip(updates.assignments, updates.weights.tolist(), updates.losses.tolist(), strict=True)
        part.reported.update({assignment: (weight, loss) for assignment, weight, loss in outcomes})


def merged(aggregator: Aggregator[Any], spec: TaskSpec, parts: Sequence[Part | None]) -> Part:
    """Return the sum of what several crews did; None is a crew without a chunk."""
    whole = Part(aggregator.init(spec))
    for part in parts:
        if part is not None:
            whole.total = aggregator.merge(whole.total, part.total)
            whole.reported.update(part.reported)
            whole.failures.update(part.failures)
            whole.personal.update(part.personal)
    return whole


def explained(client: ClientData, why: str) -> str:
    """Return why a client was kept out; when its data hold NaN or infinity, that."""
    for name, array in client.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            return f"client {client.name!r}: row {row} of {name!r} holds NaN or infinity: mend it or leave it out"
    return why
