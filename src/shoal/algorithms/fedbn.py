"""FedBN: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization"
(arXiv:2102.07623). FedAvg of all arrays but those of normalising layers, which each client trains and keeps.
"""

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.strategy import NORMALISATION, Strategy


def fedbn(*, lr: float = 1.0) -> Strategy:
    """Average the updates; weights, biases and running statistics of normalising layers stay with the clients."""
    return Strategy("fedbn", ExactMean(), SGD(lr), staying=(NORMALISATION,))
