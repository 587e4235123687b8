"""A simulated task on disk, so that it goes on after a crash as if there had been none.

One safetensors file: the arrays of the newest version and of the server optimizer, one array of bytes with a row for
every client that keeps something, and one with all the rest as MessagePack. It is replaced as a whole, durably, or
not at all.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from shoal.core.errors import CorruptStore, NotFound, RequestError, TaskError
from shoal.core.origin import Origin
from shoal.core.task import TaskSpec
from shoal.core.tree import Array, Layout, Tree, pieces
from shoal.simulation.client_store import ClientStore
from shoal.simulation.course import Course, Failure
from shoal.simulation.history import Row
from shoal.simulation.selection import Seen
from shoal.simulation.trainers import Choice
from shoal.store.durable import write_durably
from shoal.store.events import decode_state, encode_state
from shoal.wire.codec import decode_tree

META = "meta"
PERSONAL = "personal"


class _Meta(msgspec.Struct):
    """What is not an array. `state` is the rounds' own snapshot."""

    state: str
    rows: list[Row]
    seen: dict[str, Seen]
    failures: list[Failure]
    now: float
    choice: Choice
    chunk: int
    cohort: int
    clients: list[str]
    layout: Layout


@dataclass(frozen=True, slots=True)
class Saved:
    """A course with its history, the trainer's choice, and how the cohort is cut."""

    course: Course
    rows: list[Row]
    choice: Choice
    chunk: int
    cohort: int


def save(path: Path, saved: Saved) -> None:
    """Write a checkpoint; once this returns it survives a power cut. Raises StorageFull."""
    course = saved.course
    meta = _Meta(
        encode_state(course.state).decode(),
        saved.rows,
        course.seen,
        course.failures,
        course.now,
        saved.choice,
        saved.chunk,
        saved.cohort,
        list(course.personal),
        course.personal.layout,
    )
    tree: dict[str, Array] = {META: np.frombuffer(msgspec.msgpack.encode(meta), np.uint8)}
    tree.update(_prefixed("params", course.params))
    tree.update(_prefixed("memory", course.memory))
    if course.personal:
        tree[PERSONAL] = course.personal.rows()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, pieces(tree))


def load(path: Path, spec: TaskSpec) -> Saved:
    """Read a checkpoint of a task.

    Raises NotFound without the file, CorruptStore when it is no checkpoint, TaskError when it is of another task.
    """
    if not path.is_file():
        raise NotFound(f"no checkpoint {path}", "give the path that simulate(checkpoint=...) was given")
    try:
        tree = decode_tree(_mapped(path))
        meta = msgspec.msgpack.decode(tree[META].tobytes(), type=_Meta)
    except (RequestError, KeyError, ValueError) as error:
        raise CorruptStore(f"{path} is no checkpoint: {error}", "start the simulation anew") from error
    course = Course(
        decode_state(meta.state.encode()),
        _section(tree, "params"),
        _section(tree, "memory"),
        ClientStore(),
        meta.seen,
        meta.failures,
        meta.now,
    )
    if meta.clients:
        course.personal.restore(meta.clients, tree[PERSONAL], meta.layout)
    found = course.state.spec
    if _identity(found) != _identity(spec):
        raise TaskError(
            f"{path} is a checkpoint of another task, {found.name!r} with seed {found.seed}",
            "resume with the model, strategy, plan, rounds, cohort and seed that it was made with",
        )
    return Saved(course, meta.rows, meta.choice, meta.chunk, meta.cohort)


def _mapped(path: Path) -> Any:
    # what a million clients keep is read row by row, never as a whole
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _prefixed(prefix: str, tree: Tree) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in tree.items()}


def _section(tree: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in tree.items() if name.startswith(start)}


def _identity(spec: TaskSpec) -> TaskSpec:
    # the initial numbers are drawn anew by a script that is run again, and no longer needed; so is what follows of them
    return replace(spec, initial="", golden="", origin=Origin())
