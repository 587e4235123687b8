"""Ditto: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization" (arXiv:2012.04221),
algorithm 1. Beside the global model x, trained as by FedAvg, each client keeps a model v_i of its own:
    v_i <- v_i - lr * (grad F_i(v_i) + lam * (v_i - x))
from where it was in the client's last round, and in its first from x. v_i never leaves the client.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.rule import LocalRule
from shoal.algorithms.strategy import Strategy
from shoal.core.task import LocalPlan


@dataclass(frozen=True, slots=True)
class Personalised(LocalRule):
    """A second training of every round, from the client's own model and pulled towards the global one by `lam`."""

    name: ClassVar[str] = "ditto"
    lam: float = 0.1

    def companion(self, plan: LocalPlan) -> LocalPlan | None:
        """Return the plan of v_i."""
        return replace(plan, start="personal", proximal=self.lam, rule=None)


def ditto(*, lam: float = 0.1, lr: float = 1.0) -> Strategy:
    """Average the updates, and train a model of its own for every client: `run.personal`."""
    return Strategy("ditto", ExactMean(), SGD(lr), rule=Personalised(lam))
