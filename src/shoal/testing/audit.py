"""Whether a coordinator's store has every acknowledged update exactly once, and versions that are their sums."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from shoal.algorithms import registry
from shoal.algorithms.strategy import first_memory, next_version
from shoal.core.errors import CorruptStore
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree, digest
from shoal.core.types import Assignment, ModelVersion, Update
from shoal.rounds.effects import Contribution, Fold, Publish
from shoal.rounds.events import Published
from shoal.rounds.state import TaskState
from shoal.store.store import Blobs, Store
from shoal.wire.codec import join_trees


@dataclass(frozen=True, slots=True)
class Recorded:
    """One version, the updates that its round recorded, and the assignments that these answered."""

    version: ModelVersion
    contributions: tuple[Contribution, ...]
    assignments: Mapping[str, Assignment]


@dataclass(frozen=True, slots=True)
class Account:
    """What is wrong with one task, by assignment id or version number; nothing, if all are empty.

    `lost`: acknowledged and in no version, or recorded with other bytes. `doubled`: recorded more than once, or two of
    one device in one round. `wrong`: versions that are not what their recorded updates add up to, or whose bytes are
    not what their digests say.
    """

    spec: TaskSpec
    versions: tuple[ModelVersion, ...]
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrong: tuple[int, ...]


def audit(
    store: Store,
    blobs: Blobs,
    task: str,
    initial: Tree,
    acknowledged: Mapping[str, str],
    work: Callable[[Assignment, Tree], Update],
) -> Account:
    """Compare a task's stream with what its devices know.

    `acknowledged` gives the digest of every update that has a receipt, by assignment; `work` makes an update again from
    its assignment and the version that it starts from.
    """
    spec, recorded = _read(store, task)
    counted = {given.assignment: given.digest for one in recorded for given in one.contributions}
    return Account(
        spec=spec,
        versions=tuple(one.version for one in recorded),
        lost=tuple(sorted(one for one, known in acknowledged.items() if counted.get(one) != known)),
        doubled=tuple(sorted(doubled(recorded))),
        wrong=tuple(_wrong(spec, blobs, initial, recorded, work)),
    )


def _read(store: Store, task: str) -> tuple[TaskSpec, list[Recorded]]:
    state: TaskState | None = None
    fold: Recorded | None = None
    recorded: list[Recorded] = []
    for _, record in store.events(task):
        if isinstance(record.event, Published):
            state = TaskState.begin(record.event, record.at)
        assert state is not None
        for effect in state.handle(record.event, record.at):
            match effect:
                case Fold():
                    given = {lease.assignment.id: lease.assignment for lease in state.leases.values()}
                    fold = Recorded(effect.base, effect.contributions, given)
                case Publish(version) if fold is not None:
                    recorded.append(Recorded(version, fold.contributions, fold.assignments))
                case _:
                    pass
    if state is None:
        raise CorruptStore(f"task {task} has no events", "give the home that it ran in")
    return state.spec, recorded


def doubled(recorded: list[Recorded]) -> Iterator[str]:
    """Yield assignments that stand in several versions, and devices that stand twice in one."""
    times = Counter(given.assignment for one in recorded for given in one.contributions)
    yield from (assignment for assignment, number in times.items() if number > 1)
    for one in recorded:
        devices = Counter(one.assignments[given.assignment].device for given in one.contributions)
        yield from (f"{device} in round {one.version.number}" for device, number in devices.items() if number > 1)


def _wrong(
    spec: TaskSpec, blobs: Blobs, params: Tree, recorded: list[Recorded], work: Callable[[Assignment, Tree], Update]
) -> Iterator[int]:
    aggregator = registry.aggregator(spec.aggregator)
    server = registry.server_optimizer(spec.server)
    memory = first_memory(spec.travelling, params, server, registry.shared_trees(spec.local))
    for one in recorded:
        total = aggregator.init(spec)
        same = True
        for given in one.contributions:
            update = work(one.assignments[given.assignment], params)
            same = same and (digest(join_trees(update.trees)), update.weight) == (given.digest, given.weight)
            total = aggregator.add(total, update)
        params, memory = next_version(spec.travelling, params, aggregator.finish(total), server, memory)
        if not same or digest(params) != one.version.digest or not _whole(blobs, one.version.digest):
            yield one.version.number


def _whole(blobs: Blobs, expected: str) -> bool:
    found = hashlib.sha256()
    for piece in blobs.open(expected):
        found.update(piece)
    return found.hexdigest() == expected
