"""SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning"
(arXiv:1910.06378), algorithm 1 with option II. Each client keeps a control variate c_i, the version has c:
    y <- y - lr * (g(y) - c_i + c)                          K steps from y = x
    c_i+ = c_i - c + (x - y) / (K * lr)             with a schedule, over the sum of the steps' rates
    x <- x + lr_g * mean(y - x),    c <- c + |S|/N * mean(c_i+ - c_i)
All begin at zero. The drift of a client towards its own optimum is thereby taken out of every step. As in the paper
every client counts once, whatever its number of examples: else c would not be the mean of all c_i.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.rule import LocalRule, Trees, Work, mapped
from shoal.algorithms.steps import check_steps, effective_steps
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import TaskError
from shoal.core.task import WEIGHT_UNIT, LocalPlan
from shoal.core.tree import Tree
from shoal.core.types import Update

CONTROL = "control"
OWN = "own_control"


@dataclass(frozen=True, slots=True)
class Controlled(LocalRule):
    """Control variates; `participation` is |S|/N, 0 while nobody knows it."""

    name: ClassVar[str] = "scaffold"
    shares: ClassVar[tuple[str, ...]] = (CONTROL,)
    keeps: ClassVar[tuple[str, ...]] = (OWN,)
    corrects: ClassVar[bool] = True
    participation: float = 0.0

    def check(self, plan: LocalPlan) -> None:
        """Raise TaskError unless steps are plain gradients."""
        check_steps(plan, "SCAFFOLD")
        if plan.proximal or plan.clip_gradient is not None or plan.clip_update is not None:
            raise TaskError(
                f"SCAFFOLD with proximal={plan.proximal}, clip_gradient={plan.clip_gradient}, "
                f"clip_update={plan.clip_update}",
                "leave them out: c_i would not be a mean of gradients",
            )

    def correction(self, trees: Trees) -> Tree:
        """Return c - c_i."""
        return mapped(np.subtract, trees[CONTROL], trees[OWN])

    def finish(self, work: Work) -> tuple[Update, Trees]:
        """Return the update with |S|/N * (c_i+ - c_i), and c_i+."""
        distance = float(work.plan.optimizer.options["lr"] or 0.0) * effective_steps(work.plan, work.steps)
        before, delta = work.trees[OWN], work.update.delta
        after = before  # a schedule may have ended at a learning rate of zero
        if distance > 0:
            after = mapped(lambda own, c, d: own - c - d / distance, before, work.trees[CONTROL], delta)
        sent = mapped(lambda new, old: self.participation * (new - old), after, before)
        return replace(work.update, weight=WEIGHT_UNIT, extra={CONTROL: sent}), {OWN: after}


def scaffold(*, participation: float = 0.0, lr: float = 1.0) -> Strategy:
    """Correct clients' gradients by control variates; `lr` scales the step of the global model.

    `participation` is the share of all clients that take part in a round; a simulation knows it.
    """
    return Strategy("scaffold", ExactMean(), SGD(lr), rule=Controlled(participation))
