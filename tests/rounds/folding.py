"""Updates with bytes, folded as a server folds them, and what they must come to."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from shoal.algorithms import registry
from shoal.algorithms.buffered import damped
from shoal.algorithms.strategy import first_memory, next_version
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import Update
from shoal.rounds.effects import Fold
from shoal.server.fold import Folded, fold
from shoal.server.storage import Storage
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.wire.codec import join_trees

INITIAL: Tree = {"w": np.array([0.5], np.float32)}


@dataclass
class Folding:
    """The driver's side: bytes by digest. Beside it `params`, the versions that the model reckons by itself."""

    spec: TaskSpec
    storage: Storage = field(default_factory=lambda: Storage(MemoryStore(), MemoryBlobs()))
    deltas: dict[str, Tree] = field(default_factory=dict)
    params: dict[str, Tree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.params[self.keep(INITIAL)] = INITIAL

    def keep(self, tree: Tree) -> str:
        writer = self.storage.blobs.writer("updates")
        writer.write(encode(tree))
        return writer.commit()

    def update(self, assignment: str, *, other: bool) -> str:
        """Return the digest of the one update of an assignment, or of another one that a bad device would send."""
        drawn = zlib.crc32(f"{assignment}{other}".encode()) % 4001 - 2000
        delta: Tree = {"w": np.array([drawn / 1000], np.float32)}
        kept = self.keep(join_trees({"delta": delta}))
        self.deltas[kept] = delta
        return kept

    def fold(self, work: Fold) -> Folded:
        return fold(self.spec, work, self.storage)

    def reckon(self, base: str, start: str, taken: Sequence[tuple[str, int, int]]) -> str:
        """Return the digest of the version of these (digest, weight, full weight), in an order of our own."""
        arrays, total = self.spec.travelling, registry.aggregator(self.spec.aggregator).init(self.spec)
        aggregator, server = registry.aggregator(self.spec.aggregator), registry.server_optimizer(self.spec.server)
        for number, (kept, weight, _) in enumerate(sorted(taken)):
            total = aggregator.add(total, Update(str(number), self.deltas[kept], weight))
        combined = dict(aggregator.finish(total))
        params = self.params[base]
        share = sum(weight for _, weight, _ in taken) / sum(full for _, _, full in taken)
        origin = self.params[start] if start else None
        combined["delta"] = damped(arrays, combined["delta"], share, origin, params)
        moved, _ = next_version(arrays, params, combined, server, first_memory(arrays, params, server, ()))
        if not start:
            exact = sum(Fraction(float(self.deltas[kept]["w"][0])) * weight for kept, weight, _ in taken)
            expected = float(params["w"][0]) + float(exact / sum(full for _, _, full in taken))
            assert abs(float(moved["w"][0]) - expected) < 1e-6 * max(1.0, abs(expected))
        self.params[digest(moved)] = moved
        return digest(moved)
