"""Networks that misbehave on purpose, for tests of whoever must bear it.

`FlakyTransport` stands between a caller and any httpx transport; `shoal.testing.proxy.FlakyProxy` stands between real
sockets. What goes wrong is drawn from a seed.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx


class FlakyTransport(httpx.BaseTransport):
    """Hands requests to `inner`, but for the shares (0 to 1) of them that something happens to.

    `drop`: the request never arrives. `lose_reply`: it is served, its caller gets no answer. `duplicate`: it arrives
    twice, one after the other, and the second answer counts. `delay`: it is held up to `seconds` first. Several may
    happen to one request. `happened` counts what did. Bodies are read whole, so that they can be sent twice.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport,
        seed: int,
        *,
        drop: float = 0.0,
        lose_reply: float = 0.0,
        duplicate: float = 0.0,
        delay: float = 0.0,
        seconds: float = 0.05,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.happened: Counter[str] = Counter()
        self._inner = inner
        self._shares = {"delay": delay, "drop": drop, "duplicate": duplicate, "lose_reply": lose_reply}
        self._seconds = seconds
        self._sleep = sleep
        self._random = random.Random(seed)  # noqa: S311  (no secret)
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, or not. Raises ConnectError when it was dropped, ReadError when its answer was lost."""
        faults, share = self._draw()
        request.read()
        if "delay" in faults:
            self._sleep(share * self._seconds)
        if "drop" in faults:
            raise httpx.ConnectError("dropped on purpose", request=request)
        if "duplicate" in faults:
            _waste(self._inner.handle_request(request))
        response = self._inner.handle_request(request)
        if "lose_reply" in faults:
            _waste(response)
            raise httpx.ReadError("the answer was lost on purpose", request=request)
        return response

    def _draw(self) -> tuple[list[str], float]:
        with self._lock:
            faults = [name for name, share in self._shares.items() if self._random.random() < share]
            self.happened.update(faults)
            return faults, self._random.random()

    def close(self) -> None:
        """Close the transport inside."""
        self._inner.close()


def _waste(response: httpx.Response) -> None:
    response.read()
    response.close()
