"""What a round plan may ask beyond a goal and a deadline: buffered rounds, and an early end."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shoal.core.errors import TaskError

Late: TypeAlias = Literal["drop", "carry"]
Mixing: TypeAlias = Literal["change", "model"]


@dataclass(frozen=True, slots=True)
class Buffered:
    """Asynchronous rounds: devices come and go, and every `size` updates make a version.

    At most `concurrency` devices work at once, one assignment each. An update that started from a version more than
    `max_staleness` behind the one it would change is refused. `mixing` says what is added: "change" takes what a
    device changed (FedBuff, arXiv:2106.06639), "model" draws the model towards the device's (FedAsync,
    arXiv:1903.03934), which needs `size` 1.
    """

    size: int
    concurrency: int
    max_staleness: int = 20
    mixing: Mixing = "change"

    def __post_init__(self) -> None:
        if self.size < 1 or self.concurrency < 1 or self.max_staleness < 0:
            raise TaskError(
                f"buffered rounds with size={self.size}, concurrency={self.concurrency}, "
                f"max_staleness={self.max_staleness}",
                "give a size and a concurrency of at least 1, and a staleness that is not negative",
            )
        if self.mixing == "model" and self.size != 1:
            raise TaskError(f"mixing models in a buffer of {self.size}", "give size=1, or mix the changes")


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """End a task when `metric` has not improved by more than `min_improvement` for `patience` versions.

    `better` says whether lower or higher values are improvements.
    """

    metric: str
    patience: int = 5
    min_improvement: float = 0.0
    better: Literal["lower", "higher"] = "lower"

    def __post_init__(self) -> None:
        if self.patience < 1 or not 0 <= self.min_improvement < math.inf:
            raise TaskError(
                f"early stopping with patience={self.patience}, min_improvement={self.min_improvement}",
                "give a patience of at least 1 and an improvement that is not negative",
            )
