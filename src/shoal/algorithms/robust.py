"""The coordinate-wise median, which a minority of arbitrary updates cannot move far.

Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (arXiv:1803.01498):
    delta[d] = median_c delta_c[d]
Every device counts once, whatever its weight. Buffers and counters are combined as in `mean`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from shoal.algorithms.mean import ExactMean, MeanState
from shoal.core.check import check_update
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import Update

Row = tuple[str, dict[str, Tree]]


@dataclass(slots=True)
class MedianState:
    """The trainable rows with their assignment ids, and the exact mean of all the rest."""

    spec: TaskSpec
    rest: MeanState
    rows: list[Row] = field(default_factory=list[Row])


@dataclass(frozen=True, slots=True)
class Median:
    """The median of trainable arrays, element by element. Keeps one row an update."""

    name: ClassVar[str] = "median"

    def init(self, spec: TaskSpec) -> MedianState:
        """Start from nothing."""
        rest = replace(
            spec,
            arrays=_averaged(spec.travelling),
            extra={tree: _averaged(arrays) for tree, arrays in spec.extra.items()},
        )
        return MedianState(spec, ExactMean().init(rest))

    def add(self, state: MedianState, update: Update) -> MedianState:
        """Keep the update's trainable arrays as a row."""
        check_update(state.spec, update)
        rows: dict[str, Tree] = {}
        rest: dict[str, Tree] = {}
        for tree, arrays in state.spec.trees.items():
            given = update.trees[tree]
            rows[tree] = {name: given[name] for name, a in arrays.items() if a.role is Role.TRAINABLE}
            rest[tree] = {name: given[name] for name, a in arrays.items() if a.role is not Role.TRAINABLE}
        remainder = replace(update, delta=rest.pop("delta"), extra=rest)
        return MedianState(state.spec, ExactMean().add(state.rest, remainder), [*state.rows, (update.assignment, rows)])

    def merge(self, left: MedianState, right: MedianState) -> MedianState:
        """Keep the rows of both."""
        return MedianState(left.spec, ExactMean().merge(left.rest, right.rest), [*left.rows, *right.rows])

    def finish(self, state: MedianState) -> Mapping[str, Tree]:
        """Take the median over rows sorted by assignment id."""
        rest = ExactMean().finish(state.rest)
        rows = [trees for _, trees in sorted(state.rows, key=lambda row: row[0])]
        return {
            tree: {
                name: np.asarray(np.median(np.stack([row[tree][name] for row in rows]).astype(np.float64), axis=0))
                if array.role is Role.TRAINABLE
                else rest[tree][name]
                for name, array in arrays.items()
            }
            for tree, arrays in state.spec.trees.items()
        }


def _averaged(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    return {name: array for name, array in arrays.items() if array.role is not Role.TRAINABLE}
