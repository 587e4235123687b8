"""Combining a round's updates into the next version, from disk and in blocks.

Memory is a few blocks whatever the model's size and the number of updates: the aggregator and the server optimizer
work element by element, so slices of flattened arrays give the bits that whole arrays would.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shoal.algorithms import registry
from shoal.algorithms.buffered import damped
from shoal.algorithms.strategy import first_memory, next_version
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import WRITE_BYTES, Array, Tree, header
from shoal.core.types import Update
from shoal.rounds.effects import Contribution, Fold
from shoal.server.storage import Slices, Storage, TreeFile, blocks
from shoal.store.durable import storage_full
from shoal.store.failpoints import reached
from shoal.store.store import Blobs


@dataclass(frozen=True, slots=True)
class Folded:
    """Digests of the new version and of what belongs to it beside its arrays ("" when there is nothing)."""

    digest: str
    checkpoint: str


def fold(spec: TaskSpec, work: Fold, storage: Storage) -> Folded:
    """Combine the updates of a round with its base version; both results are durable when this returns.

    Raises NotFinite when the result is no model, NotFound when bytes are missing, CorruptStore when they are
    not those that were written, StorageFull.
    """
    arrays = spec.travelling
    base = storage.checked(work.base.digest)
    start = storage.checked(work.start) if work.start else None
    files = _Files(storage)
    # equal bytes come one after the other, and are read once: sums are the same in any order
    contributions = sorted(work.contributions, key=lambda given: given.digest)
    server, shares = registry.server_optimizer(spec.server), registry.shared_trees(spec.local)
    checkpoint = storage.checked(work.base.checkpoint) if work.base.checkpoint else None
    model = storage.blobs.writer("published")
    try:
        model.write(header({name: (array.dtype, array.shape) for name, array in arrays.items()}))
        with _Checkpoint(first_memory(arrays, _nothing(arrays), server, shares), arrays) as kept:
            for group in blocks(arrays):
                combined = _combine(spec, group, contributions, files)
                params = _cut(base, group)
                combined["delta"] = damped(
                    arrays, combined["delta"], work.share, _cut(start, group) if start else None, params
                )
                memory = _memory(checkpoint, group) if checkpoint else first_memory(arrays, params, server, shares)
                moved, memory = next_version(arrays, params, combined, server, memory)
                for name, _, _ in group:
                    model.write(np.ascontiguousarray(moved[name]).tobytes())
                kept.write(memory, group)
                del params, combined, moved, memory  # not held while the next block is summed
                reached("mid_fold")
            digest = kept.commit(storage.blobs)
        reached("before_model")
        folded = Folded(model.commit(), digest)
        for made in filter(None, (folded.digest, folded.checkpoint)):
            storage.written(made)
        reached("after_model")
        return folded
    finally:
        model.abort()


def _cut(tree: TreeFile, group: Slices) -> Tree:
    return {name: tree.slice(name, start, stop) for name, start, stop in group}


def _nothing(arrays: Mapping[str, ArraySpec]) -> Tree:
    return {name: np.zeros(0, array.dtype) for name, array in arrays.items()}


def _combine(spec: TaskSpec, group: Slices, contributions: Sequence[Contribution], files: "_Files") -> dict[str, Tree]:
    cuts = _cuts(spec, group)
    specs = {tree: {name: cut.spec for name, cut in arrays.items()} for tree, arrays in cuts.items()}
    part = replace(spec, arrays=specs.pop("delta"), extra=specs)
    aggregator = registry.aggregator(spec.aggregator)
    state = aggregator.init(part)
    trees: dict[str, Tree] = {}
    delta: Tree = {}
    held = ""
    for given in contributions:
        if given.digest != held:
            held, file = given.digest, files.open(given.digest)
            trees = {
                tree: {name: cut.read(f"{tree}/{name}", file) for name, cut in arrays.items()}
                for tree, arrays in cuts.items()
            }
            delta = trees.pop("delta")
        state = aggregator.add(state, Update(given.assignment, delta, given.weight, extra=trees))
    return dict(aggregator.finish(state))


class _Files:
    """The updates of a round, each opened when it is needed; of those that the store holds one is in memory."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._blobs: dict[str, TreeFile] = {}

    def open(self, digest: str) -> TreeFile:
        """Open an update, whose bytes are known to be those of its digest."""
        found = self._blobs.get(digest) or self._storage.checked(digest)
        if not found.in_memory:
            self._blobs[digest] = found
        return found


@dataclass(frozen=True, slots=True)
class _Cut:
    """The part of an array that belongs to a block: elements [start, stop), in the shape of `spec`."""

    spec: ArraySpec
    start: int
    stop: int

    def read(self, name: str, file: TreeFile) -> Array:
        return file.slice(name, self.start, self.stop).reshape(self.spec.shape)


def _cuts(spec: TaskSpec, group: Slices) -> dict[str, dict[str, _Cut]]:
    """Return the parts of all trees of an update that belong to a block of the model's arrays.

    Arrays like the model's are cut as those are; others, such as a number of steps, belong to every block.
    """
    ranges = {name: (start, stop) for name, start, stop in group}
    cuts: dict[str, dict[str, _Cut]] = {}
    for tree, arrays in spec.trees.items():
        cuts[tree] = {}
        for name, array in arrays.items():
            if name in spec.arrays and spec.arrays[name].shape == array.shape:
                if name in ranges:
                    start, stop = ranges[name]
                    cuts[tree][name] = _Cut(replace(array, shape=(stop - start,)), start, stop)
            else:
                cuts[tree][name] = _Cut(array, 0, array.size)
    return cuts


def _memory(checkpoint: TreeFile, group: Slices) -> Tree:
    ranges = {name: (start, stop) for name, start, stop in group}
    return {
        key: checkpoint.slice(key, *ranges[name])
        for key in checkpoint.places
        if (name := key.partition("/")[2]) in ranges
    }


class _Checkpoint:
    """Collects what belongs to a version beside its arrays, block by block, in a file of the canonical layout.

    `slots` are its arrays without their elements, named "<slot>/<array of the model>".
    """

    def __init__(self, slots: Tree, arrays: Mapping[str, ArraySpec]) -> None:
        layout = {key: (array.dtype.name, arrays[key.partition("/")[2]].shape) for key, array in slots.items()}
        self._header = header(layout)
        self._starts: dict[str, int] = {}
        end = len(self._header)
        for key in sorted(layout):
            self._starts[key] = end
            end += arrays[key.partition("/")[2]].size * slots[key].dtype.itemsize
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)

    def __enter__(self) -> "_Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, memory: Tree, group: Slices) -> None:
        starts = {name: start for name, start, _ in group}
        for key, array in memory.items():
            offset = self._starts[key] + starts[key.partition("/")[2]] * array.dtype.itemsize
            self._put(np.ascontiguousarray(array).tobytes(), offset)

    def _put(self, data: bytes, offset: int) -> None:
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise storage_full(Path(tempfile.gettempdir()), error) from error

    def commit(self, blobs: Blobs) -> str:
        if not self._starts:
            return ""
        self._put(self._header, 0)
        writer = blobs.writer("published")
        try:
            self._file.seek(0)
            while piece := self._file.read(WRITE_BYTES):
                writer.write(piece)
            return writer.commit()
        finally:
            writer.abort()
