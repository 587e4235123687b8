"""How many values of each column lie between given edges, over all owners: one pass of counts.

As numpy's: a value on an edge counts in the bin above it, one on the last edge in the last bin, and one outside all
edges in none. Counts are whole numbers, whose float64 sums are exact up to 2^53.
"""

import numpy as np

from shoal.algorithms.statistics import Floats
from shoal.core.errors import NoRows, TaskError
from shoal.core.task import ArraySpec
from shoal.core.tree import Tree

PASSES = 1
MOST_BINS = 4096


def arrays(columns: int, bins: int) -> dict[str, ArraySpec]:
    """Return the arrays of a task that counts in a number of bins."""
    return {"counts": ArraySpec((columns, bins), "float64"), "edges": ArraySpec((columns, bins + 1), "float64")}


def begin(edges: Floats) -> Tree:
    """Return version 0: the edges [columns, bins + 1], nothing counted. Raises TaskError when they do not rise."""
    bins = edges.shape[-1] - 1
    if edges.ndim != 2 or not 1 <= bins <= MOST_BINS:
        raise TaskError(f"edges of shape {edges.shape}", f"give each column from 2 to {MOST_BINS + 1} edges")
    if not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
        raise TaskError(f"edges {edges.tolist()}", "give finite numbers that do not fall")
    return {"counts": np.zeros((len(edges), bins), np.float64), "edges": edges.astype(np.float64)}


def even(minimum: Floats, maximum: Floats, bins: int) -> Floats:
    """Return the edges [columns, bins + 1] of bins of one width between the smallest and the largest values."""
    return np.linspace(minimum, maximum, bins + 1, axis=1)


def measure(table: Floats, so_far: Tree) -> Tree:
    """Return what an owner releases about its `table` [rows, columns]. Raises NoRows."""
    if len(table) == 0:
        raise NoRows("a table without rows", "give at least one row")
    counts = [np.histogram(column, edges)[0] for column, edges in zip(table.T, so_far["edges"], strict=True)]
    return {"counts": np.stack(counts).astype(np.float64), "edges": np.zeros_like(so_far["edges"])}
