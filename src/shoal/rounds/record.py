"""What happened in a round, for its researcher."""

from dataclasses import dataclass, field

from shoal.core.types import Costs

REASONS = 16
"""Kinds of reasons that are told apart in one round; devices word theirs freely."""

REASON_LENGTH = 100
OTHER = "other reasons"

EXPIRED = "its lease ran out"
DEADLINE = "the deadline passed"


@dataclass(slots=True)
class RoundRecord:
    """One attempt at a round. It grows while the attempt lasts, and never changes afterwards but in `late`.

    `places` devices were wanted and `selected` got an assignment; `reported` of their updates count, `carried` of
    these came from the round before. `dropped` and `refused` count the others by why; `late` came after the close.
    `update_bytes` is the size of the updates that count, `bytes_up` and `bytes_down` what their devices measured on
    their sockets. Seconds: `selecting` until all places were taken or the attempt closed, `collecting` from then to
    its close, `committing` until its version was durable. `outcome` is "open", "committing", "committed",
    "abandoned" or "ended"; `since` when the present phase began.
    """

    round: int
    attempt: int
    places: int
    since: float
    outcome: str = "open"
    reason: str = ""
    selected: int = 0
    reported: int = 0
    carried: int = 0
    late: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    refused: dict[str, int] = field(default_factory=dict[str, int])
    update_bytes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    full: bool = False
    selecting: float = 0.0
    collecting: float = 0.0
    committing: float = 0.0

    def count(self, size: int, costs: Costs, *, carried: bool) -> None:
        """Count an update in."""
        self.reported += 1
        self.carried += carried
        self.update_bytes += size
        self.bytes_up += costs.bytes_up
        self.bytes_down += costs.bytes_down

    def drop(self, reason: str, times: int = 1) -> None:
        """Count a device that did not report."""
        _count(self.dropped, reason, times)

    def refuse(self, reason: str) -> None:
        """Count a device whose update was not taken."""
        _count(self.refused, reason, 1)

    def recover(self, reason: str) -> None:
        """A device that was counted as dropped reported after all."""
        if self.dropped[reason] == 1:
            del self.dropped[reason]
        else:
            self.dropped[reason] -= 1

    def _lasted(self, now: float) -> float:
        # a clock that was set back meanwhile tells no duration
        return max(0.0, now - self.since)

    def fill(self, now: float) -> None:
        """All places are taken, for the first time."""
        self.selecting, self.since, self.full = self._lasted(now), now, True

    def close(self, now: float, outcome: str, reason: str = "") -> None:
        """No more updates are taken."""
        if self.full:
            self.collecting = self._lasted(now)
        else:
            self.selecting = self._lasted(now)
        self.since, self.outcome, self.reason = now, outcome, reason

    def commit(self, now: float) -> None:
        """The version is there."""
        self.committing = self._lasted(now)
        self.since, self.outcome = now, "committed"


def _count(reasons: dict[str, int], reason: str, times: int) -> None:
    reason = reason[:REASON_LENGTH]
    if reason not in reasons and reason not in (EXPIRED, DEADLINE) and len(reasons) >= REASONS:
        reason = OTHER
    reasons[reason] = reasons.get(reason, 0) + times
