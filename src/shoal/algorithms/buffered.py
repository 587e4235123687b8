"""Buffered asynchronous rounds: FedBuff and FedAsync.

FedBuff: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (arXiv:2106.06639):
    x_{t+1} = x_t + lr * sum_c weight_c * s(tau_c) * delta_c / sum_c weight_c        over a buffer of updates c
FedAsync: Xie et al. 2019, "Asynchronous Federated Optimization" (arXiv:1903.03934), with a polynomial of 1/2:
    x_{t+1} = (1 - alpha * s(tau)) * x_t + alpha * s(tau) * (x_{t-tau} + delta)
Both with s(tau) = 1/sqrt(1 + tau); tau is how many versions were made between the one that the device started from and
the one that its update changes. A stale update is damped, not only outweighed: the sum of the weights stays undamped.
"""

import math
from collections.abc import Mapping

from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.strategy import Strategy
from shoal.core.plan import Buffered
from shoal.core.roles import Role
from shoal.core.task import ArraySpec
from shoal.core.tree import Tree


def fedbuff(*, size: int = 10, concurrency: int = 100, max_staleness: int = 20, lr: float = 1.0) -> Strategy:
    """Make a version of every `size` updates, from at most `concurrency` devices at work."""
    return Strategy("fedbuff", ExactMean(), SGD(lr), buffered=Buffered(size, concurrency, max_staleness))


def fedasync(*, alpha: float = 0.6, concurrency: int = 100, max_staleness: int = 20) -> Strategy:
    """Draw the model towards each device's as it arrives, by `alpha` when it is fresh."""
    buffered = Buffered(1, concurrency, max_staleness, mixing="model")
    return Strategy("fedasync", ExactMean(), SGD(alpha), buffered=buffered)


def staleness_weight(weight: int, staleness: int) -> int:
    """Return weight / sqrt(1 + staleness), rounded once to weight units and at least 1 of them."""
    return max(1, round(weight / math.sqrt(1 + staleness)))


def damped(arrays: Mapping[str, ArraySpec], delta: Tree, share: float, start: Tree | None, base: Tree) -> Tree:
    """Return the part `share` of a combined change; with `start`, of what leads from `base` to `start` + `delta`.

    Counters are left as they are. Works on whole trees and on blocks of flattened arrays alike.
    """
    if share == 1.0 and start is None:
        return delta
    moved = {
        name: array if start is None else array + (start[name].astype(array.dtype) - base[name])
        for name, array in delta.items()
        if arrays[name].role is not Role.COUNTER
    }
    return {**delta, **{name: array * share for name, array in moved.items()}}
