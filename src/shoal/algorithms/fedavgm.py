"""FedAvgM: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification" (arXiv:1909.06335). FedAvg with momentum on the server.
"""

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import Momentum
from shoal.algorithms.strategy import Strategy


def fedavgm(*, lr: float = 1.0, beta: float = 0.9) -> Strategy:
    """Average the updates and step along their decayed sum."""
    return Strategy("fedavgm", ExactMean(), Momentum(lr, beta))
