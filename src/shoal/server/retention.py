"""What may be removed from a home: decided here from plain values, carried out in `housekeeping.py`.

An update is needed until it is combined. A version is needed while it is among the newest of its task, is the first,
is pinned, is what a device trains from or serves, or shares its bytes with one that is.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from shoal.core.task import TaskSpec
from shoal.core.types import ModelVersion
from shoal.rounds import promotion
from shoal.rounds.state import TaskState
from shoal.server.limits import Limits
from shoal.store.store import Stored


@dataclass(frozen=True, slots=True)
class Kept:
    """One task's versions, oldest first; digests that are in use whatever their age; numbers of versions that stay."""

    versions: Sequence[ModelVersion]
    used: Set[str]
    pinned: Set[int]


def orphans(stored: Iterable[Stored], needed: Set[str], now: float, grace: float) -> list[Stored]:
    """Return the updates that nothing needs and that are older than `grace` seconds."""
    return [blob for blob in stored if blob.digest not in needed and now - blob.since > grace]


def expired(tasks: Sequence[Kept], limits: Limits) -> list[str]:
    """Return the digests of models and optimizer states whose versions have had their time, each once."""
    if limits.keep_versions is None:
        return []
    needed = {digest for task in tasks for digest in _needed(task, limits.keep_versions)}
    all_of_them = (digest for task in tasks for version in task.versions for digest in _digests(version))
    return [digest for digest in dict.fromkeys(all_of_them) if digest not in needed]


def updates(state: TaskState) -> set[str]:
    """Return the digests of the updates that a task still has to combine."""
    return {update.digest for update in state.buffer}


def used(state: TaskState) -> set[str]:
    """Return the digests of what a task's spec names, and of the versions that its devices train from or serve."""
    starts = {lease.assignment.version for lease in state.leases.values()}
    on_trial = [state.heads.candidate.number] if state.heads.candidate else []
    served = {state.versions[number].digest for number in (promotion.head(state), *on_trial)}
    base = {state.base.digest, state.base.checkpoint} - {""}
    return named(state.spec) | starts | served | base | {update.version for update in state.buffer}


def known(state: TaskState) -> set[str]:
    """Return the digests of all published blobs that a task ever named, removed or not."""
    return used(state) | {digest for version in state.versions for digest in _digests(version)}


def named(spec: TaskSpec) -> set[str]:
    """Return the digests of the blobs that a task's spec names."""
    return {spec.initial, spec.frozen, spec.golden, spec.exported} - {""}


def _needed(task: Kept, newest: int) -> Iterator[str]:
    yield from task.used
    for version in task.versions[-newest:]:
        yield from _digests(version)
    for version in task.versions:
        if version.number == 0 or version.number in task.pinned:
            yield from _digests(version)


def _digests(version: ModelVersion) -> Iterator[str]:
    yield version.digest
    if version.checkpoint:
        yield version.checkpoint
