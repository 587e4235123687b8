"""Noisy statistics of an owner's columns: differential privacy for one row that is replaced by another.

Each of d columns spends epsilon / d. A column's values stay in its range [low, high], which was checked when the worker
started, so a replaced row moves their sum by at most high - low. Values are rounded to a grid of 2^-32 of that span
and the noise is a whole number of steps of it, the difference of two geometric variables (Ghosh, Roughgarden and
Sundararajan 2009): the low bits of a float Laplace sample would tell the sum (Mironov 2012).
"""

import math
import secrets
from collections.abc import Callable

import numpy as np
import torch

from shoal.core.errors import ConfigurationError
from shoal.remote.catalogue import DataSet, Range
from shoal.remote.labels import Aggregate

GRID = 1 << 32
STATISTICS = ("mean", "sum")


def prepared(data: DataSet, asked: Aggregate) -> Callable[[], torch.Tensor]:
    """Return what draws the answer. Raises ConfigurationError, NotFound for what has none, before it costs."""
    if asked.statistic not in STATISTICS or not 1e-6 <= asked.epsilon < math.inf:
        raise ConfigurationError(
            f"the {asked.statistic[:20]!r} with epsilon={asked.epsilon}",
            f"ask for one of {', '.join(STATISTICS)}, with an epsilon of at least 1e-6",
        )
    values = data.array(asked.array)
    ranges = [data.ranges.get(column) for column in data.columns.get(asked.array, ())]
    known = [each for each in ranges if each is not None]
    if values.dim() != 2 or len(known) != values.shape[1] or any(each.high <= each.low for each in known):
        raise ConfigurationError(
            f"an aggregate of {data.name}.{asked.array}, whose columns do not all have a range",
            "its owner has to say low and high of each, in the TOML file beside the data",
        )
    return lambda: _noisy(values, known, asked)


def _noisy(values: torch.Tensor, ranges: list[Range], asked: Aggregate) -> torch.Tensor:
    drawing = np.random.Generator(np.random.Philox(secrets.randbits(128)))
    epsilon = asked.epsilon / len(ranges)
    sums = [_column(values[:, at].double().numpy(), each, epsilon, drawing) for at, each in enumerate(ranges)]
    total = torch.tensor(sums, dtype=torch.float64)
    return total / len(values) if asked.statistic == "mean" else total


def _column(values: np.ndarray, allowed: Range, epsilon: float, drawing: np.random.Generator) -> float:
    step = (allowed.high - allowed.low) / GRID
    known = np.nan_to_num(values, nan=allowed.low)  # or one row could move the sum by more than its range
    steps = np.rint((np.clip(known, allowed.low, allowed.high) - allowed.low) / step).astype(np.int64)
    stop = -math.expm1(-epsilon / GRID)  # a replaced row moves the sum by at most GRID steps
    noise = int(drawing.geometric(stop)) - int(drawing.geometric(stop))
    return (int(steps.sum()) + noise) * step + allowed.low * len(values)
