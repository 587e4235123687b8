"""FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv:1812.06127).
Each device adds mu/2 * ||w - w_global||^2 to its loss, which keeps its model near the global one.
"""

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.strategy import Strategy


def fedprox(*, mu: float, lr: float = 1.0) -> Strategy:
    """Average the updates of devices that train with the proximal term."""
    return Strategy("fedprox", ExactMean(), SGD(lr), proximal=mu)
