"""What a published run's versions say, as rows of a table."""

from dataclasses import dataclass
from typing import Any

from shoal.core.types import ModelVersion


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version that devices made: what they measured, how many there were, and what they spent."""

    version: ModelVersion

    def cells(self) -> dict[str, Any]:
        """Return the row as one flat mapping; seconds and bytes are sums over the devices."""
        made, costs = self.version, self.version.costs
        return {
            "round": made.number,
            **made.metrics,
            "reports": made.reports,
            "train_seconds": costs.train_seconds,
            "network_seconds": costs.network_seconds,
            "bytes_up": costs.bytes_up,
            "bytes_down": costs.bytes_down,
            "digest": made.digest,
        }
