"""When to repeat a call that failed for a while, and how long to wait before."""

import random
from collections.abc import Callable

from shoal.core.errors import BadSignature, ShoalError, TooSlow


def transient(error: ShoalError) -> bool:
    """Whether the same call may succeed later: the other side is away, busy or broken, and the call is not wrong.

    A signature that was refused is one of the network's, which changed a call or sent it twice.
    """
    return error.status >= 500 or isinstance(error, TooSlow | BadSignature)


class Backoff:
    """Delays that double from `first` to `most` seconds, each cut by up to a half so that callers spread out."""

    def __init__(
        self,
        first: float = 0.2,
        most: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._most = most
        self._jitter = jitter
        self._failures = 0

    def next(self) -> float:
        """Return the next delay in seconds."""
        # 2.0**1024 is no float
        delay = min(self._most, self._first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return delay * (1 - self._jitter() / 2)

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._failures = 0
