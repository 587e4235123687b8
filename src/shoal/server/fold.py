"""Combining a round's updates into the next version, from disk and in blocks.

Memory is a few blocks whatever the model's size and the number of updates: the aggregator and the server optimizer
work element by element, so slices of flattened arrays give the bits that whole arrays would.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shoal.algorithms import registry
from shoal.algorithms.buffered import damped
from shoal.algorithms.optimizer import ServerOptimizer
from shoal.algorithms.strategy import advance, trainable
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import WRITE_BYTES, Tree, header
from shoal.core.types import Update
from shoal.rounds.effects import Contribution, Fold
from shoal.server.storage import Slices, Storage, TreeFile, blocks
from shoal.store.durable import storage_full
from shoal.store.failpoints import reached
from shoal.store.store import Blobs


@dataclass(frozen=True, slots=True)
class Folded:
    """Digests of the new version and of the server optimizer's state ("" when it has none)."""

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
    updates = [(given, storage.checked(given.digest)) for given in work.contributions]
    server = registry.server_optimizer(spec.server)
    checkpoint = storage.checked(work.base.checkpoint) if work.base.checkpoint else None
    model = storage.blobs.writer("published")
    try:
        model.write(header({name: (array.dtype, array.shape) for name, array in arrays.items()}))
        with _Checkpoint(server, arrays) as kept:
            for group in blocks(arrays):
                params = _cut(base, group)
                delta = _combine(spec, group, updates)
                delta = damped(arrays, delta, work.share, _cut(start, group) if start else None, params)
                state = _state(server, params, arrays, group, checkpoint)
                moved, state = advance(arrays, params, delta, server, state)
                for name, _, _ in group:
                    model.write(np.ascontiguousarray(moved[name]).tobytes())
                kept.write(state, group)
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


def _combine(spec: TaskSpec, group: Slices, updates: list[tuple[Contribution, TreeFile]]) -> Tree:
    arrays = {name: replace(spec.arrays[name], shape=(stop - start,)) for name, start, stop in group}
    part = replace(spec, arrays=arrays, extra={})
    aggregator = registry.aggregator(spec.aggregator)
    state = aggregator.init(part)
    for given, file in updates:
        delta = {name: file.slice(f"delta/{name}", start, stop) for name, start, stop in group}
        state = aggregator.add(state, Update(given.assignment, delta, given.weight))
    return aggregator.finish(state)["delta"]


def _state(
    server: ServerOptimizer, params: Tree, arrays: Mapping[str, ArraySpec], group: Slices, checkpoint: TreeFile | None
) -> Tree:
    if checkpoint is None:
        return server.init(trainable(arrays, params))
    ranges = {name: (start, stop) for name, start, stop in group}
    return {
        key: checkpoint.slice(key, *ranges[name])
        for key in checkpoint.places
        if (name := key.partition("/")[2]) in ranges
    }


class _Checkpoint:
    """Collects the server optimizer's state block by block in a file of the canonical layout."""

    def __init__(self, server: ServerOptimizer, arrays: Mapping[str, ArraySpec]) -> None:
        probe = {name: np.zeros(0, array.dtype) for name, array in arrays.items()}
        slots = server.init(trainable(arrays, probe))
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

    def write(self, state: Tree, group: Slices) -> None:
        starts = {name: start for name, start, _ in group}
        for key, array in state.items():
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
