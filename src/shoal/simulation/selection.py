"""Choosing the clients of a round: pure functions of seed, round and what is known of the clients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from shoal.core.errors import ConfigurationError
from shoal.core.seeds import derive

CUTOFF = 0.95
"""Of the utility that the last place needs: those that have this much may get one (the paper's c)."""

LEAST_UTILITY = 1e-12


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client told when it took part last: its loss, on how many rows, and in which round."""

    loss: float
    rows: float
    round: int


class Selection(Protocol):
    """Chooses `cohort` of the names, all different.

    `seen` tells of those that took part before, if the class `remembers`.
    """

    remembers: ClassVar[bool]

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: Mapping[str, Seen]
    ) -> Sequence[str]:
        """Return the names of a round's clients."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every client with the same chance."""

    remembers: ClassVar[bool] = False

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: Mapping[str, Seen]
    ) -> Sequence[str]:
        """Draw without replacement; all clients in their order when the cohort is everybody."""
        del seen
        if cohort == len(names):
            return names
        return [names[i] for i in _draws(seed, round).choice(len(names), cohort, replace=False)]


@dataclass(frozen=True, slots=True)
class BySize:
    """Clients with a chance in proportion to `sizes`, such as their number of rows."""

    remembers: ClassVar[bool] = False
    sizes: Mapping[str, float] = field(default_factory=dict[str, float])

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: Mapping[str, Seen]
    ) -> Sequence[str]:
        """Draw without replacement, one after the other. Raises ConfigurationError for a client without a size."""
        del seen
        missing = next((name for name in names if not self.sizes.get(name, 0) > 0), None)
        if missing is not None:
            raise ConfigurationError(f"selection by size: client {missing!r} has no size", "give every client one")
        weights = np.array([self.sizes[name] for name in names], np.float64)
        chosen = _draws(seed, round).choice(len(names), cohort, replace=False, p=weights / weights.sum())
        return [names[i] for i in chosen]


@dataclass(frozen=True, slots=True)
class PowerOfChoice:
    """The clients with the highest loss among some candidates.

    Cho et al. 2020, "Client Selection in Federated Learning" (arXiv:2010.01243), the variant rpow-d: `candidates`
    are drawn, in proportion to `sizes` if given, and those whose last known loss is the highest are chosen; clients
    that never took part come first.
    """

    remembers: ClassVar[bool] = True
    candidates: int
    sizes: Mapping[str, float] | None = None

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: Mapping[str, Seen]
    ) -> Sequence[str]:
        """Draw candidates and keep those with the highest loss. Raises ConfigurationError for too few candidates."""
        if self.candidates < cohort:
            raise ConfigurationError(
                f"power of choice with {self.candidates} candidates for a cohort of {cohort}",
                "give at least as many candidates as the cohort has clients",
            )
        draw = Uniform() if self.sizes is None else BySize(self.sizes)
        drawn = draw.choose(names, min(self.candidates, len(names)), seed=seed, round=round, seen=seen)
        return sorted(drawn, key=lambda name: -seen[name].loss if name in seen else -np.inf)[:cohort]


@dataclass(frozen=True, slots=True)
class Cyclic:
    """Clients in turn, everybody once before anybody twice: in their order, or in one that the seed shuffled."""

    remembers: ClassVar[bool] = False
    shuffled: bool = False

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: Mapping[str, Seen]
    ) -> Sequence[str]:
        """Take the next ones, and go on with the first after the last."""
        del seen
        places = (np.arange(cohort) + (round - 1) * cohort) % len(names)
        if self.shuffled:
            places = _draws(seed, 0).permutation(len(names))[places]
        return [names[int(place)] for place in places]


@dataclass(frozen=True, slots=True)
class Utility:
    """Clients from which most is to be learnt, and new ones among them.

    Lai et al. 2021, "Oort: Efficient Federated Learning via Guided Participant Selection" (arXiv:2010.06081), algorithm
    1, without the speed of clients, of which rounds without a population know nothing:
        U_i = n_i * F_i / max_j(n_j * F_j) + sqrt(0.1 * ln(round) / last_i)
    with n_i rows, loss F_i and round last_i of the last time, the mean loss standing for the paper's root mean square.
    A share of the cohort, `explore` in round 1, times `decay` every round and never below `least`, are clients that
    never took part; the others are drawn in proportion to U_i among those with 0.95 of the utility that the last place
    needs.
    """

    remembers: ClassVar[bool] = True
    explore: float = 0.9
    decay: float = 0.98
    least: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.least <= self.explore <= 1 and 0 < self.decay <= 1):
            raise ConfigurationError(
                f"selection by utility with explore={self.explore}, decay={self.decay}, least={self.least}",
                "give 0 <= least <= explore <= 1 and a decay above 0 and up to 1",
            )

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: Mapping[str, Seen]
    ) -> Sequence[str]:
        """Draw new clients and useful ones; more of either when there are too few of the other."""
        known = [name for name in names if name in seen]
        new = [name for name in names if name not in seen]
        share = max(self.least, self.explore * self.decay ** (round - 1))
        exploring = max(min(len(new), math.ceil(share * cohort)), cohort - len(known))
        draws = _draws(seed, round)
        chosen = [new[i] for i in draws.choice(len(new), exploring, replace=False)] if exploring else []
        return chosen + _useful(draws, known, [seen[name] for name in known], cohort - exploring, round)


def _useful(
    draws: np.random.Generator, known: Sequence[str], seen: Sequence[Seen], count: int, round: int
) -> list[str]:
    if count == 0:
        return []
    learnt = np.array([each.rows * each.loss for each in seen])
    last = np.array([each.round for each in seen])
    utility = learnt / max(learnt.max(), LEAST_UTILITY) + np.sqrt(0.1 * np.log(round) / last)
    utility = np.maximum(utility, LEAST_UTILITY)  # a probability of zero could not fill the places
    pool = np.flatnonzero(utility >= CUTOFF * np.sort(utility)[-count])
    chosen = draws.choice(pool, count, replace=False, p=utility[pool] / utility[pool].sum())
    return [known[i] for i in chosen]


def _draws(seed: int, round: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive(seed, round, "selection")))
