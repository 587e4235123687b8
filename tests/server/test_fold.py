"""Combining updates that lie in blobs: several references to one, in any order, against the sum one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shoal.algorithms.mean import ExactMean
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import ModelVersion, Update
from shoal.rounds.effects import Contribution, Fold
from shoal.server.fold import fold
from shoal.server.storage import BLOCK, Storage
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.store import Namespace
from shoal.wire.codec import encode_trees

SIZE = BLOCK + 5
DRAWS = np.random.default_rng(1)
DELTAS: list[Tree] = [{"w": DRAWS.standard_normal(SIZE, np.float32)} for _ in range(3)]
START: Tree = {"w": DRAWS.standard_normal(SIZE, np.float32)}
SPEC = TaskSpec(
    "t", {"w": ArraySpec((SIZE,), "float32")}, 1, RoundPlan(goal=8), bounds=Bounds(8.0, 100.0, 1 << 13), initial="0"
)


def kept(storage: Storage, namespace: Namespace, data: bytes) -> str:
    writer = storage.blobs.writer(namespace)
    writer.write(data)
    return writer.commit()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 100 << 16)), min_size=1, max_size=8), st.randoms())
def test_each_reference_counts_with_its_own_weight(references, random):
    storage = Storage(MemoryStore(), MemoryBlobs())
    base = kept(storage, "published", encode(START))
    digests = [kept(storage, "updates", encode_trees({"delta": delta})) for delta in DELTAS]
    contributions = [Contribution(f"a{i}", digests[blob], weight) for i, (blob, weight) in enumerate(references)]
    random.shuffle(contributions)
    found = fold(SPEC, Fold(1, 1, ModelVersion(0, base, "", 0.0), tuple(contributions)), storage)
    mean = ExactMean()
    state = mean.init(SPEC)
    for number, (blob, weight) in enumerate(references):
        state = mean.add(state, Update(f"a{number}", DELTAS[blob], weight))
    moved = START["w"] + mean.finish(state)["delta"]["w"]
    assert found.digest == digest({"w": moved.astype(np.float32)})
