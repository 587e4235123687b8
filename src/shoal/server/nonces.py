"""Refusing what was signed too long ago, and what came before."""

from shoal.core.errors import BadSignature
from shoal.wire.signing import Signature

WINDOW_SECONDS = 60.0
"""For how long a signature may be on its way."""

MOST_NONCES = 500_000
"""Nonces that are remembered at most: about 60 MB."""


class Nonces:
    """The nonces of the last minute, of one process.

    Signatures from before `start` are refused: another process may have taken them, and its memory is gone. When there
    are more nonces than `most`, the oldest second is forgotten, and what was signed in it or before is refused.
    """

    def __init__(self, start: float, most: int = MOST_NONCES) -> None:
        self._floor = int(start * 1000) / 1000  # signatures say milliseconds
        self._most = most
        self._seconds: dict[int, set[str]] = {}
        self._count = 0
        self._latest = start
        self._ahead = 0.0

    def now(self, clock: float) -> float:
        """Return the time by which signatures are judged: the clock's, going on evenly where that is set back."""
        if clock + self._ahead < self._latest:
            self._ahead = self._latest - clock
        self._latest = clock + self._ahead
        return self._latest

    def use(self, signature: Signature, clock: float) -> None:
        """Take note of a signature that holds. Raises BadSignature for one too old, of the future, or seen before."""
        now = self.now(clock)
        if not max(self._floor, now - WINDOW_SECONDS) <= signature.created <= now:
            raise BadSignature(
                f"a call signed at {signature.created:.3f}, it is {now:.3f} here",
                f"sign calls less than {WINDOW_SECONDS:g} s ago by the coordinator's clock, and since it started",
            )
        second = int(signature.created)
        if second not in self._seconds:
            self._forget(now - WINDOW_SECONDS)
            self._seconds[second] = set()
        nonces = self._seconds[second]
        one = signature.key + signature.nonce
        if one in nonces:
            raise BadSignature(f"the nonce {signature.nonce!r} came before", "draw a new nonce for every call")
        nonces.add(one)
        self._count += 1
        if self._count > self._most:
            self._shorten()

    def __len__(self) -> int:
        return self._count

    def _forget(self, before: float) -> None:
        for second in [second for second in self._seconds if second + 1 <= before]:
            self._count -= len(self._seconds.pop(second))

    def _shorten(self) -> None:
        oldest = min(self._seconds)
        self._count -= len(self._seconds.pop(oldest))
        self._floor = oldest + 1.0
