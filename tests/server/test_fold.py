"""Combining updates: several references to one, in any order, against the sum one by one; many small ones."""

import gc
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shoal.algorithms.mean import ExactMean
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import ModelVersion, Update
from shoal.rounds.effects import Contribution, Fold
from shoal.rounds.events import Recorded, Reported
from shoal.server.fold import fold
from shoal.server.storage import BLOCK, Storage
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.sql import SqlStore
from shoal.store.store import Entry, Namespace
from shoal.wire.codec import decode_tree, encode_trees

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


SECONDS = 20
SMALL = TaskSpec(
    "t", {"w": ArraySpec((2000,), "float32")}, 1, RoundPlan(goal=8), bounds=Bounds(8.0, 100.0, 1 << 9), initial="0"
)


def test_small_updates_are_not_in_memory_all_at_once(tmp_path: Path):
    number, rng = 300, np.random.default_rng(2)
    store = SqlStore(tmp_path / "db")
    storage = Storage(store, MemoryBlobs())
    base = kept(storage, "published", encode({"w": np.zeros(2000, np.float32)}))
    deltas = [{"w": rng.standard_normal(2000, np.float32)} for _ in range(number)]
    inline = {hashlib.sha256(data).hexdigest(): data for delta in deltas if (data := encode_trees({"delta": delta}))}
    events = [Recorded(1.0, Reported(f"a{i}", f"d{i}", digest, 1, 1 << 16)) for i, digest in enumerate(inline)]
    store.submit(Entry("t-1", events, 0, store.lead("t-1"), inline)).result(SECONDS)
    contributions = tuple(Contribution(f"a{i}", digest, 1 << 16) for i, digest in enumerate(inline))
    total = sum(map(len, inline.values()))
    del inline, events
    gc.collect()
    tracemalloc.start()
    try:
        found = fold(SMALL, Fold(1, 1, ModelVersion(0, base, "", 0.0), contributions), storage)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        store.close()
    assert peak < total / 4, (peak, total)
    mean = np.mean([delta["w"] for delta in deltas], axis=0, dtype=np.float64)
    moved = decode_tree(b"".join(storage.blobs.open(found.digest)))["w"]
    np.testing.assert_allclose(moved, mean, atol=1e-6)
