"""What happened in one round of a simulated run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One round: its version's digest, the weighted mean loss of its clients, how many reported and how many failed.

    `measures` holds the loss and metrics on the task's test rows as "test_<name>". `seconds` is wall time.
    """

    round: int
    digest: str
    loss: float
    reports: int
    failed: int
    seconds: float
    trainer: str
    measures: Mapping[str, float] = field(default_factory=dict[str, float])

    def cells(self) -> dict[str, Any]:
        """Return the row as one flat mapping."""
        own = {name: getattr(self, name) for name in ("round", "loss", "reports", "failed", "seconds", "trainer")}
        return {**own, **self.measures, "digest": self.digest}
