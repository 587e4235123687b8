"""Which versions devices serve: at once, after a canary, or when a person says so."""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from shoal.core.errors import TaskError

Promote: TypeAlias = Literal["always", "canary", "person"]


@dataclass(frozen=True, slots=True)
class Canary:
    """A trial of a version by a `fraction` of the devices, before all get it.

    `devices` of them measure `metric` of the candidate and of the version that is served, each on the rows that it
    holds out. The candidate may be worse by `tolerance`, in the metric's unit; `better` says which direction is worse.
    It is rolled back when it is worse, when the means are over fewer than `minimum_rows` rows, when they are not there
    after `deadline` seconds, and when more than `refusals` devices found that it does not work there.
    """

    fraction: float = 0.1
    metric: str = "loss"
    tolerance: float = 0.0
    better: Literal["lower", "higher"] = "lower"
    devices: int = 2
    minimum_rows: int = 20
    deadline: float = 86400.0
    refusals: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise TaskError(f"a canary of the fraction {self.fraction:g}", "give a number above 0, at most 1")
        if not self.metric or self.better not in ("lower", "higher"):
            raise TaskError(f"a canary guarded by {self.metric!r}, {self.better!r} better", 'name a metric, "lower"')
        if not 0 <= self.tolerance < math.inf or not 0 < self.deadline < math.inf:
            raise TaskError(
                f"a canary with tolerance={self.tolerance}, deadline={self.deadline}",
                "give a tolerance that is not negative, and positive seconds",
            )
        if self.devices < 2 or self.minimum_rows < 1 or self.refusals < 0:
            raise TaskError(
                f"a canary with devices={self.devices}, minimum_rows={self.minimum_rows}, refusals={self.refusals}",
                "give at least 2 devices and 1 row: owners release a mean over several only",
            )

    def worse(self, candidate: float, head: float) -> bool:
        """Whether the candidate's metric is worse than the head's by more than the tolerance; NaN is worse."""
        loss = candidate - head if self.better == "lower" else head - candidate
        return not loss <= self.tolerance


@dataclass(frozen=True, slots=True)
class Serving:
    """When a new version becomes the one that devices serve.

    "always" serves the newest, "canary" tries each new one by `canary` first (those that come while one is tried are
    passed over for the newest), "person" waits for somebody to promote one; version 0 is served until then.
    """

    promote: Promote = "always"
    canary: Canary = field(default_factory=Canary)

    def __post_init__(self) -> None:
        if self.promote not in ("always", "canary", "person"):
            raise TaskError(f"serving with promote={self.promote!r}", 'give "always", "canary" or "person"')
