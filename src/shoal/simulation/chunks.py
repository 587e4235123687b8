"""Cutting a cohort into chunks that are trained at once. A chunk never depends on how many workers there are."""

from collections.abc import Sequence

import numpy as np

from shoal.core.task import TaskSpec
from shoal.simulation.crew import Chunk, Job

CACHE_BYTES = 2 << 20
"""Model bytes of a chunk that a processor's cache holds: larger chunks are slower, not faster."""

MEMORY_BYTES = 256 << 20
"""Bound of the memory of a chunk, of which a model takes about `COPIES`: parameters, gradients, optimizer state."""

COPIES = 6

LEAST = 8
"""Clients below which the cost of an operation's call outweighs the cache."""

MOST = 256

SHARED = 128
"""Cohort from which at least two chunks are made, so that two workers can share a round."""


def chunk_size(spec: TaskSpec, cohort: int) -> int:
    """Return how many clients are trained at once: what cache and memory hold, evenly over an even number of chunks."""
    model = max(1, sum(array.size * np.dtype(array.dtype).itemsize for array in spec.travelling.values()))
    fitting = min(MOST, max(LEAST, CACHE_BYTES // model), max(1, MEMORY_BYTES // (COPIES * model)))
    chunks = -(-cohort // fitting)
    if cohort > SHARED or chunks > 1:
        chunks += chunks % 2
    return -(-cohort // chunks)


def chunked(jobs: Sequence[Job], sizes: Sequence[int] | None, size: int) -> list[Chunk]:
    """Cut jobs into chunks of `size`, the clients with most rows first where that is known.

    Clients of one chunk then have about as many steps, and the longest work is handed out first.
    """
    if sizes is not None:
        jobs = [jobs[i] for i in np.argsort(-np.array(sizes), kind="stable")]
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]
