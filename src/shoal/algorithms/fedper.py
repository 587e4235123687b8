"""FedPer: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers" (arXiv:1912.00818).
FedAvg of the base layers; the personalisation layers are trained together with them and stay with each client.
"""

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.strategy import Strategy


def fedper(*patterns: str, lr: float = 1.0) -> Strategy:
    """Average the updates; arrays whose names match a pattern, such as "head.*", stay with the clients."""
    return Strategy("fedper", ExactMean(), SGD(lr), staying=patterns)
