"""What combining a round of 10,000 updates of 1.4 million float32 costs: `shoal.server.fold`, the code of the server.

The updates are 10,000 references, each with a weight of its own, to 50 blobs in a folder: as many blobs would take
56 GB. `fold_10000_cpu_s` is the processor time of this process, user and system, for the exact sums, the server
optimizer and the new version. Hashing the updates is not in it: a server hashes them as they arrive. Reading is in it
once for each blob, not for each reference, and so is writing the version. No sum of one reference is used for another.
`fold_peak_models` is by how much the resident memory of the process grows meanwhile at most (VmHWM), in models of
4 bytes a parameter. With fewer references the time is scaled to 10,000.
"""

import ctypes
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from processes import forget_peak, memory

from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.core.tree import encode as encode_tree
from shoal.core.types import ModelVersion
from shoal.rounds.effects import Contribution, Fold
from shoal.server.fold import fold
from shoal.server.storage import Storage
from shoal.store.blobs import FolderBlobs
from shoal.store.memory import MemoryStore
from shoal.store.store import Namespace
from shoal.wire.codec import encode_trees

ASKED = 10_000
LARGEST_WEIGHT = 1000 << 16


def figures(references: int, blobs: int, elements: int) -> Mapping[str, float]:
    """Measure one fold."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(MemoryStore(), FolderBlobs(Path(folder)))
        fold(*round_of(storage, 2, 2, 1), storage)  # what is only loaded once is there by now
        spec, work = round_of(storage, references, blobs, elements)
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the preparation gave back is not to be used by the fold
        forget_peak(os.getpid())
        before, began = memory(os.getpid(), "VmRSS"), time.process_time()
        folded = fold(spec, work, storage)
        spent, peak = time.process_time() - began, memory(os.getpid(), "VmHWM") - before
        if storage.tree(folded.digest).slice("w", 0, 1) == 0:
            raise SystemExit("the fold moved nothing")
    return {
        "fold_10000_cpu_s": spent * ASKED / references,
        "fold_peak_models": peak / (4 * elements),
        "fold_references": references,
        "fold_gb_per_cpu_s": references * elements * 4 / spent / 1e9,
    }


def round_of(storage: Storage, references: int, blobs: int, elements: int) -> tuple[TaskSpec, Fold]:
    """Return a round whose updates lie in a storage, hashed by it as they were written."""
    draws = np.random.default_rng(1)
    bounds = Bounds(max_abs=8.0, max_weight=1000.0, max_updates=1 << (ASKED - 1).bit_length())
    plan = RoundPlan(goal=references)
    start = _kept(storage, "published", encode_tree({"w": np.zeros(elements, np.float32)}))
    spec = TaskSpec("fold", {"w": ArraySpec((elements,), "float32")}, 1, plan, bounds=bounds, initial=start)
    deltas: list[Tree] = [{"w": 0.01 * draws.standard_normal(elements, np.float32)} for _ in range(blobs)]
    digests = [_kept(storage, "updates", encode_trees({"delta": delta})) for delta in deltas]
    weights = draws.integers(1, LARGEST_WEIGHT, references)
    given = [Contribution(f"a{i}", digests[i % blobs], int(weight)) for i, weight in enumerate(weights)]
    return spec, Fold(1, 1, ModelVersion(0, start, "", 0.0), tuple(given))


def _kept(storage: Storage, namespace: Namespace, data: bytes) -> str:
    writer = storage.blobs.writer(namespace)
    writer.write(data)
    digest = writer.commit()
    storage.written(digest)
    return digest
