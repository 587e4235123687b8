"""Where a task stands."""

from enum import StrEnum
from typing import Literal, TypeAlias

Shown: TypeAlias = Literal["collecting", "committing", "paused", "finished", "failed", "cancelled"]
"""A phase as people see it."""


class Phase(StrEnum):
    """Where a task stands."""

    COLLECTING = "collecting"
    COMMITTING = "committing"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self is not Phase.COLLECTING and self is not Phase.COMMITTING
