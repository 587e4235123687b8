"""FedDyn: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization" (arXiv:2111.04263), algorithm 1.
Each client keeps g_i, the gradient of its own loss where it last ended; the server keeps h. All begin at zero:
    y_i = argmin L_i(y) - <g_i, y> + alpha/2 * ||y - x||^2,    g_i <- g_i - alpha * (y_i - x)
    h <- h - alpha * |S|/N * mean(y_i - x),    x <- mean(y_i) - h / alpha
The argmin is what the local plan reaches. As in the paper every client counts once, whatever its number of examples.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.rule import LocalRule, Trees, Work, mapped
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import TaskError
from shoal.core.task import WEIGHT_UNIT, LocalPlan
from shoal.core.tree import Tree
from shoal.core.types import Update

GRADIENT = "gradient"


@dataclass(frozen=True, slots=True)
class Dynamic(LocalRule):
    """Each client's gradient, taken out of its next steps; alpha is the plan's `proximal`."""

    name: ClassVar[str] = "feddyn"
    keeps: ClassVar[tuple[str, ...]] = (GRADIENT,)
    corrects: ClassVar[bool] = True

    def check(self, plan: LocalPlan) -> None:
        """Raise TaskError without a proximal term: g_i would stay zero."""
        if not plan.proximal > 0:
            raise TaskError(f"FedDyn with alpha={plan.proximal}", "give a positive one")

    def correction(self, trees: Trees) -> Tree:
        """Return -g_i."""
        return mapped(np.negative, trees[GRADIENT])

    def finish(self, work: Work) -> tuple[Update, Trees]:
        """Return the update as it is, and the gradient where training ended."""
        alpha, delta = work.plan.proximal, work.update.delta
        after = mapped(lambda g, d: g - alpha * d, work.trees[GRADIENT], delta)
        return replace(work.update, weight=WEIGHT_UNIT), {GRADIENT: after}


@dataclass(frozen=True, slots=True)
class DynamicServer:
    """x + D - h / alpha; `participation` is |S|/N, 0 while nobody knows it."""

    name: ClassVar[str] = "feddyn"
    alpha: float = 0.1
    participation: float = 0.0

    def init(self, params: Tree) -> Tree:
        """Return h = 0."""
        return {f"h/{name}": np.zeros_like(array) for name, array in params.items()}

    def step(self, params: Tree, direction: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Move to the mean of the clients' models, corrected by h."""
        step = self.alpha * self.participation
        h = {name: state[f"h/{name}"].astype(np.float64) - step * direction[name] for name in params}
        moved = mapped(lambda x, d, h: x + d - h / self.alpha, params, direction, h)
        return moved, {f"h/{name}": np.asarray(h[name], array.dtype) for name, array in params.items()}


def feddyn(*, alpha: float = 0.1, participation: float = 0.0) -> Strategy:
    """Pull clients towards a common stationary point; a larger `alpha` takes smaller steps.

    `participation` is the share of all clients that take part in a round; a simulation knows it.
    """
    return Strategy("feddyn", ExactMean(), DynamicServer(alpha, participation), proximal=alpha, rule=Dynamic())
