"""When a device that got no work is to come back, so that as many come as wanted (Bonawitz et al. 2019, 2.3).

A large population is spread: each device waits D = active / rate on average, drawn from [D/2, 3D/2], so that however
they came, in one second after an outage too, they come back evenly. A small one meets: everybody is needed, so all
come when the next round opens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shoal.core.schedule import DAY

SMALL = 1000
"""A population of no more devices than this is small, ..."""

ROUNDS = 10
"""... and so is one of no more than this many rounds need: each is needed again soon."""

LONGEST = DAY
"""Devices come once a day at least: they want new versions too."""


def mean_delay(active: int, rate: float) -> float:
    """Return after how many seconds each of `active` devices is to come for `rate` of them a second to come."""
    return min(LONGEST, active / rate) if rate > 0 else LONGEST


def meets(active: int, places: int) -> bool:
    """Whether a population is so small that all are to come when the next round opens."""
    return active <= max(SMALL, ROUNDS * places)


def spread(mean: float, draw: float) -> float:
    """Return a delay from [mean/2, 3 mean/2] for a draw from [0, 1)."""
    return mean * (0.5 + draw)


def retry_after(wait: float, places: int, seconds: float, active: int, draw: float) -> float:
    """Return when a device comes back, in seconds: `wait` is when it may get work at the earliest.

    A round wants `places` devices within `seconds`; `active` devices may be asked; `draw` comes from [0, 1).
    """
    if meets(active, places):
        return wait
    mean = mean_delay(active, places / seconds)
    # who came before the round opens would come in vain
    return spread(mean, draw) if wait <= mean / 2 else wait + mean * draw


def lately(seen: Mapping[str, float]) -> list[str]:
    """Return the devices whose last call was within a day before the last one of all, by when each called.

    So an outage does not make a population small, and those that went for good long ago do not make it large.
    """
    last = max(seen.values(), default=0.0)
    return [device for device, at in seen.items() if last - at <= LONGEST]


@dataclass(slots=True)
class Population:
    """Counts the devices that come: those of this day or of the day before, whichever are more.

    `known` are those that came in the day before `began`. A name is kept as its hash: they are only counted.
    """

    began: float
    known: set[int] = field(default_factory=set[int])
    came: set[int] = field(default_factory=set[int])

    @classmethod
    def of(cls, devices: Iterable[str], now: float) -> "Population":
        """Begin with the devices that are known to have come lately."""
        return cls(now, set(map(hash, devices)))

    @property
    def active(self) -> int:
        """How many devices take part."""
        return max(len(self.known), len(self.came))

    def arrived(self, device: str, now: float) -> None:
        """Count a device that calls now."""
        if now - self.began >= 1.5 * LONGEST:
            self.known, self.came, self.began = self.came, set(), now
        self.came.add(hash(device))
