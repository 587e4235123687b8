"""The metrics of one version over the rows that all owners hold out, without an update or an owner's own value.

Each owner releases, for each metric, its mean times its number of rows, and that number. The sums are `math.fsum`'s
(`statistics.Moments`), so the weighted mean has the same bits in any order and grouping of owners.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.core.errors import Abandoned
from shoal.core.task import ArraySpec
from shoal.core.tree import Tree

NAMES = ("rows", "total")


def arrays(metrics: int) -> dict[str, ArraySpec]:
    """Return the arrays of an evaluation of a number of metrics."""
    return {name: ArraySpec((metrics,), "float64") for name in NAMES}


def nothing(metrics: int) -> Tree:
    """Return version 0 of an evaluation: nothing measured yet."""
    return {name: np.zeros(metrics, np.float64) for name in NAMES}


def measure(values: Sequence[float], rows: int) -> Tree:
    """Return what an owner releases whose rows have these means."""
    return {"rows": np.full(len(values), float(rows)), "total": np.array(values, np.float64) * rows}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the held-out rows of all owners, by metric."""

    metrics: Mapping[str, float]
    rows: int
    owners: int


def result(metrics: Sequence[str], tree: Tree, owners: int) -> Evaluation:
    """Read the last version of an evaluation. Raises Abandoned when it is over no rows."""
    rows = tree["rows"]
    if not (rows > 0).all():
        raise Abandoned("an evaluation over 0 rows", "let owners hold out rows: shoal agent --holdout 0.2")
    values = (tree["total"] / rows).tolist()
    return Evaluation(dict(zip(metrics, values, strict=True)), int(rows[0]), owners)
