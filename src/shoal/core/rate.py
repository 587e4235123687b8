"""Learning-rate schedules as plain data: by what the local learning rate is multiplied as training goes on."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shoal.core.errors import TaskError

Kind: TypeAlias = Literal["constant", "exponential", "step", "cosine", "warmup"]
KINDS = ("constant", "exponential", "step", "cosine", "warmup")


@dataclass(frozen=True, slots=True)
class Rate:
    """The factor of the learning rate at time t = 0, 1, 2, ..., which counts rounds or a client's local steps.

    Each kind is a scheduler of torch.optim.lr_scheduler, in closed form: "exponential" (ExponentialLR) is gamma**t,
    "step" (StepLR) gamma**(t // period), "cosine" (CosineAnnealingLR) falls from 1 to `floor` in `period`, and stays
    there, "warmup" (LinearLR) rises from `floor` to 1 in `period`.
    """

    kind: Kind = "constant"
    gamma: float = 1.0
    period: int = 1
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f"a learning-rate schedule of kind {self.kind!r}", f"use one of {', '.join(KINDS)}")
        if not (0 < self.gamma <= 1 and self.period >= 1 and 0 <= self.floor <= 1):
            raise TaskError(
                f"a learning-rate schedule with gamma={self.gamma}, period={self.period}, floor={self.floor}",
                "give 0 < gamma <= 1, period >= 1 and 0 <= floor <= 1",
            )

    def at(self, time: int) -> float:
        """Return the factor at a time, the first of which is 0."""
        progress = min(time, self.period) / self.period
        match self.kind:
            case "constant":
                return 1.0
            case "exponential":
                return float(self.gamma**time)
            case "step":
                return float(self.gamma ** (time // self.period))
            case "cosine":
                return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2
            case "warmup":
                return self.floor + (1 - self.floor) * progress


CONSTANT = Rate()


def exponential(gamma: float) -> Rate:
    """Multiply by gamma every time."""
    return Rate("exponential", gamma)


def stepped(period: int, gamma: float = 0.1) -> Rate:
    """Multiply by gamma once a period."""
    return Rate("step", gamma, period)


def cosine(period: int, floor: float = 0.0) -> Rate:
    """Fall to `floor` along half a cosine in a period."""
    return Rate("cosine", period=period, floor=floor)


def warmup(period: int, floor: float = 0.0) -> Rate:
    """Rise from `floor` in a straight line in a period."""
    return Rate("warmup", period=period, floor=floor)
