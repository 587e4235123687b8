"""How an owner trains: on which device, and with how many rows kept out of it."""

from dataclasses import dataclass

from shoal.agent.policy import Policy
from shoal.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """`holdout` is the share of the rows that is kept out of training, to measure versions on; `device` a torch name.

    Raises ConfigurationError for a share that is not from 0 up to, but without, 1.
    """

    holdout: float = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ConfigurationError(f"a holdout of {self.holdout:g}", "give a share of the rows, such as 0.2")

    def held(self, rows: int) -> int:
        """Return how many of a number of rows are kept out of training."""
        return round(rows * self.holdout)

    def check(self, rows: int, policy: Policy) -> None:
        """Raise ConfigurationError when either part is too small for the policy, which goes for metrics too."""
        held = self.held(rows)
        if self.holdout and min(held, rows - held) < policy.minimum_rows:
            raise ConfigurationError(
                f"a holdout of {self.holdout:g} of {rows} rows keeps {held} and trains on {rows - held}",
                f"this owner's policy asks for at least {policy.minimum_rows} in each part; give another share",
            )
