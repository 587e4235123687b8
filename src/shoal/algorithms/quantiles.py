"""Quantiles over all owners by bisection: passes of counts, each within the bracket that the one before it left.

The quantile q of n values is numpy's: between the values of rank floor(h) and ceil(h), h = q (n - 1), on a straight
line. Each rank is looked for in a bracket, at first from the smallest to the largest value. A pass counts the values
up to each of BRANCHES edges in the bracket; the rank lies behind the last edge that has too few. So a pass divides the
bracket by BRANCHES, and each value is known to a stated share of its column's range. What is counted next follows from
what was counted, by the same float64 arithmetic on every device (Saukas and Song 1999, "A note on parallel selection").

Shapes: C columns, K ranks, P passes, B = BRANCHES.
"""

import math
from collections.abc import Sequence

import numpy as np

from shoal.algorithms.statistics import Floats
from shoal.core.errors import Abandoned, NoRows, TaskError
from shoal.core.task import ArraySpec
from shoal.core.tree import Tree

BRANCHES = 32


def passes(tolerance: float) -> int:
    """Return how many passes tell a value to `tolerance`, a share of its column's range. Raises TaskError."""
    if not 1e-12 <= tolerance <= 1:
        raise TaskError(f"quantiles to a tolerance of {tolerance:g}", "give a share of the range, from 1e-12 to 1")
    return max(1, math.ceil(-math.log(tolerance) / math.log(BRANCHES) - 1e-9))


def arrays(columns: int, ranks: int, rounds: int) -> dict[str, ArraySpec]:
    """Return the arrays of a task that looks for a number of ranks in a number of passes."""
    shapes = {"counts": (rounds, columns, ranks, BRANCHES)} | dict.fromkeys(("high", "low"), (columns,))
    return {name: ArraySpec(shape, "float64") for name, shape in shapes.items()} | {
        "ranks": ArraySpec((ranks,), "float64"),
        "rows": ArraySpec((rounds,), "float64"),
    }


def begin(low: Floats, high: Floats, count: float, wanted: Sequence[float], rounds: int) -> Tree:
    """Return version 0: the ranges [C] of the columns and the ranks behind the `wanted` quantiles of `count` rows.

    Raises TaskError for a quantile that is not from 0 to 1.
    """
    if not wanted or not all(0 <= quantile <= 1 for quantile in wanted):
        raise TaskError(f"quantiles {list(wanted)}", "give numbers from 0 to 1")
    ranks = np.array(
        [rank for quantile in wanted for h in [quantile * (count - 1)] for rank in (math.floor(h), math.ceil(h))]
    )
    counts = np.zeros((rounds, len(low), len(ranks), BRANCHES), np.float64)
    rows = np.zeros(rounds, np.float64)
    return {"counts": counts, "high": high, "low": low, "ranks": ranks.astype(np.float64), "rows": rows}


def _edges(low: Floats, high: Floats) -> Floats:
    """Return the edges [C, K, B] in brackets [C, K]: the lower end is one, the upper end is none."""
    edges: Floats = low[..., None] + (high - low)[..., None] * (np.arange(BRANCHES) / BRANCHES)
    return edges


def brackets(so_far: Tree, done: int) -> tuple[Floats, Floats]:
    """Return low and high [C, K] of the brackets that hold the ranks after `done` passes."""
    shape = so_far["counts"].shape[1:3]
    low, high = (np.broadcast_to(so_far[name][:, None], shape).copy() for name in ("low", "high"))
    for counts in so_far["counts"][:done]:
        edges = np.concatenate([_edges(low, high), high[..., None]], axis=-1)
        few = (counts <= so_far["ranks"][:, None]).sum(axis=-1)  # edges with too few values up to them
        above = np.take_along_axis(edges, few[..., None], -1)[..., 0]
        below = np.take_along_axis(edges, np.maximum(few - 1, 0)[..., None], -1)[..., 0]
        low, high = below, above
    return low, high


def measure(table: Floats, so_far: Tree, number: int) -> Tree:
    """Return what an owner releases in pass `number` about its `table` [rows, C]: counts of values up to edges."""
    if len(table) == 0:
        raise NoRows("a table without rows", "give at least one row")
    edges = _edges(*brackets(so_far, number - 1))
    released = {name: np.zeros_like(array) for name, array in so_far.items()}
    released["rows"][number - 1] = len(table)
    for column, values in enumerate(np.sort(table, axis=0).T):
        released["counts"][number - 1, column] = np.searchsorted(values, edges[column], side="right")
    return released


def result(so_far: Tree, count: float, wanted: Sequence[float]) -> Floats:
    """Return the quantiles [C, number wanted], each within the tolerance of numpy's on the pooled rows.

    Raises Abandoned when a pass was over another number of rows than `count`.
    """
    if (so_far["rows"] != count).any():
        rows = [int(number) for number in so_far["rows"]]
        raise Abandoned(
            f"passes over {rows} rows, ranks among {int(count)}", "let the same owners take part: make all the goal"
        )
    low, high = brackets(so_far, len(so_far["counts"]))
    values = low + (high - low) / 2
    share = np.array([quantile * (count - 1) % 1 for quantile in wanted])
    found: Floats = values[:, 0::2] + (values[:, 1::2] - values[:, 0::2]) * share
    return found
