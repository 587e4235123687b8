"""FedRep: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning"
(arXiv:2102.07089), algorithm 1. The model is a representation phi, common to all, and a head h_k of each client. In a
round a client first trains its head over the representation that it got, and then the representation under that head:
    h_k <- h_k - lr * grad_h F_k(h_k, phi)         `head_epochs` times over its rows, from where h_k was
    phi_k <- phi_k - lr * grad_phi F_k(h_k, phi_k)    as the local plan says, from phi
    phi <- sum_k p_k phi_k
Heads never leave their clients. The paper's clients have equally many rows; others count by theirs, as in FedAvg.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.rule import LocalRule
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import TaskError
from shoal.core.task import LocalPlan


@dataclass(frozen=True, slots=True)
class HeadFirst(LocalRule):
    """The local arrays are trained alone, for `head_epochs`, and then the others alone, by the local plan."""

    name: ClassVar[str] = "fedrep"
    head_epochs: int = 5

    def check(self, plan: LocalPlan) -> None:
        """Refuse a number of epochs below 1, and training from a personal representation."""
        if self.head_epochs < 1:
            raise TaskError(f"FedRep with head_epochs={self.head_epochs}", "give at least 1")
        if plan.start != "global":
            raise TaskError(
                f"FedRep with start={plan.start!r}", 'leave start at "global": the representation is common to all'
            )

    def local_first(self, plan: LocalPlan) -> LocalPlan | None:
        """Return the plan of the heads."""
        return replace(plan, epochs=self.head_epochs, proximal=0.0, clip_update=None, rule=None)


def fedrep(*patterns: str, head_epochs: int = 5, lr: float = 1.0) -> Strategy:
    """Average what clients make of the representation, each under a head of its own.

    The head is made of the arrays whose names match a pattern, such as "head.*". Raises TaskError without a pattern.
    """
    if not patterns:
        raise TaskError("FedRep without a pattern", 'name the head: shoal.fedrep("head.*")')
    return Strategy("fedrep", ExactMean(), SGD(lr), rule=HeadFirst(head_epochs), staying=patterns)
