"""Time as a parameter."""

from dataclasses import dataclass


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until it is moved; call it for the time in seconds."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
