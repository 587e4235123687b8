"""Choosing the clients of a round: pure functions of seed, round and what is known of the clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from shoal.core.errors import ConfigurationError
from shoal.core.seeds import derive


class Selection(Protocol):
    """Chooses `cohort` of the names, all different.

    `losses` holds the last known loss of those that took part, if the class `uses_losses`.
    """

    uses_losses: ClassVar[bool]

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, losses: Mapping[str, float]
    ) -> Sequence[str]:
        """Return the names of a round's clients."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every client with the same chance."""

    uses_losses: ClassVar[bool] = False

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, losses: Mapping[str, float]
    ) -> Sequence[str]:
        """Draw without replacement; all clients in their order when the cohort is everybody."""
        del losses
        if cohort == len(names):
            return names
        return [names[i] for i in _draws(seed, round).choice(len(names), cohort, replace=False)]


@dataclass(frozen=True, slots=True)
class BySize:
    """Clients with a chance in proportion to `sizes`, such as their number of rows."""

    uses_losses: ClassVar[bool] = False
    sizes: Mapping[str, float] = field(default_factory=dict[str, float])

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, losses: Mapping[str, float]
    ) -> Sequence[str]:
        """Draw without replacement, one after the other. Raises ConfigurationError for a client without a size."""
        del losses
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

    uses_losses: ClassVar[bool] = True
    candidates: int
    sizes: Mapping[str, float] | None = None

    def choose(
        self, names: Sequence[str], cohort: int, *, seed: int, round: int, losses: Mapping[str, float]
    ) -> Sequence[str]:
        """Draw candidates and keep those with the highest loss. Raises ConfigurationError for too few candidates."""
        if self.candidates < cohort:
            raise ConfigurationError(
                f"power of choice with {self.candidates} candidates for a cohort of {cohort}",
                "give at least as many candidates as the cohort has clients",
            )
        draw = Uniform() if self.sizes is None else BySize(self.sizes)
        drawn = draw.choose(names, min(self.candidates, len(names)), seed=seed, round=round, losses=losses)
        return sorted(drawn, key=lambda name: -losses.get(name, np.inf))[:cohort]


def _draws(seed: int, round: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive(seed, round, "selection")))
