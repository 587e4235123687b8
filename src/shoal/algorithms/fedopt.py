"""FedAdagrad, FedAdam, FedYogi: Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295).
The averaged update is the gradient of an adaptive optimizer on the server.
"""

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import Adagrad, Adam, Yogi
from shoal.algorithms.strategy import Strategy


def fedadagrad(*, lr: float = 0.1, tau: float = 1e-3) -> Strategy:
    """Average the updates and step by Adagrad."""
    return Strategy("fedadagrad", ExactMean(), Adagrad(lr=lr, tau=tau))


def fedadam(*, lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Strategy:
    """Average the updates and step by Adam."""
    return Strategy("fedadam", ExactMean(), Adam(lr=lr, beta1=beta1, beta2=beta2, tau=tau))


def fedyogi(*, lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Strategy:
    """Average the updates and step by Yogi."""
    return Strategy("fedyogi", ExactMean(), Yogi(lr=lr, beta1=beta1, beta2=beta2, tau=tau))
