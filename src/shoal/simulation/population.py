"""What simulated devices are like: how fast, when they can be reached, how often they vanish, how far away they are."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.core.errors import ConfigurationError
from shoal.core.schedule import DAY

HOUR = 3600.0

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """A positive number that differs: lognormal around its median, `sigma` being the deviation of its logarithm."""

    median: float
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.median < math.inf and 0 <= self.sigma < math.inf):
            raise ConfigurationError(
                f"a spread with median={self.median}, sigma={self.sigma}", "give a positive median and sigma >= 0"
            )

    def draw(self, generator: np.random.Generator, count: int) -> Floats:
        """Draw some of these numbers."""
        return self.median * np.exp(self.sigma * generator.standard_normal(count))


@dataclass(frozen=True, slots=True)
class Daily:
    """The share of devices that can be reached, a cosine over the day (UTC): `most` at the hour `peak`."""

    least: float
    most: float = 1.0
    peak: float = 14.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1 or self.most == 0:
            raise ConfigurationError(
                f"an availability between {self.least} and {self.most}", "give 0 <= least <= most <= 1, most above 0"
            )

    def at(self, now: float) -> float:
        """Return the share at a time."""
        middle, swing = (self.most + self.least) / 2, (self.most - self.least) / 2
        return middle + swing * math.cos(2 * math.pi * (now / DAY - self.peak / 24))


@dataclass(frozen=True, slots=True)
class Population:
    """How the devices of a simulation behave, for `shoal.simulate(population=...)`.

    `speed` is how many rows a device trains in a second (each has its own, drawn once), `latency` how many seconds an
    exchange with the coordinator takes (drawn anew each time), `availability` the share of devices that can be reached
    (a number, or `Daily`), `dropout` the probability that a device which got an assignment is never heard of again in
    this round. Who cannot be reached tries again after about `try_again` seconds.
    """

    speed: Spread | float = 1000.0
    availability: Daily | float = 1.0
    dropout: float = 0.0
    latency: Spread | float = 1.0
    try_again: float = 1800.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigurationError(f"a population with dropout={self.dropout}", "give a probability below 1")
        if not 0 < self.try_again < math.inf:
            raise ConfigurationError(f"a population with try_again={self.try_again}", "give a positive number")
        _ = self.speeds, self.latencies, self.reachable  # whose numbers are checked

    @property
    def speeds(self) -> Spread:
        """Rows a second, from device to device."""
        return self.speed if isinstance(self.speed, Spread) else Spread(self.speed)

    @property
    def latencies(self) -> Spread:
        """Seconds of an exchange."""
        return self.latency if isinstance(self.latency, Spread) else Spread(self.latency)

    @property
    def reachable(self) -> Daily:
        """The share of devices that can be reached, over the day."""
        given = self.availability
        return given if isinstance(given, Daily) else Daily(given, given)
