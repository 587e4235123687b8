"""FedAvg: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data"
(arXiv:1602.05629). The global model becomes the example-weighted average of the devices' models.
"""

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.strategy import Strategy


def fedavg(*, lr: float = 1.0) -> Strategy:
    """Average the updates; `lr` scales the step of the global model."""
    return Strategy("fedavg", ExactMean(), SGD(lr))
