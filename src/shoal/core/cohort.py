"""A part of all devices, chosen by the hash of their names: the same ones on every machine and after every restart."""

from dataclasses import dataclass

from shoal.core.errors import TaskError
from shoal.core.seeds import SEED_BITS, derive


@dataclass(frozen=True, slots=True)
class Cohort:
    """So large a `fraction` of the devices; another `salt` chooses others."""

    salt: str
    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise TaskError(f"a cohort of the fraction {self.fraction:g}", "give a number above 0, at most 1")

    def holds(self, device: str) -> bool:
        """Whether a device belongs to it."""
        return derive("cohort", self.salt, device) < self.fraction * (1 << SEED_BITS)
