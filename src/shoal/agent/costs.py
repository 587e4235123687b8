"""What an agent spends, counted once: each reading covers the time since the one before."""

import time
from collections.abc import Callable

from shoal.core.types import Costs
from shoal.wire.http import Traffic


class Meter:
    """Reads the counters of this process."""

    def __init__(self, traffic: Traffic, cpu: Callable[[], float] = time.process_time) -> None:
        self._traffic = traffic
        self._cpu = cpu
        self._last = self._now()

    def _now(self) -> Costs:
        traffic = self._traffic
        return Costs(0.0, traffic.seconds, self._cpu(), traffic.bytes_up, traffic.bytes_down)

    def read(self, train_seconds: float) -> Costs:
        """Return what was spent since the last reading, with the time that the work itself took."""
        last, self._last = self._last, self._now()
        return Costs(
            train_seconds,
            self._last.network_seconds - last.network_seconds,
            self._last.cpu_seconds - last.cpu_seconds,
            self._last.bytes_up - last.bytes_up,
            self._last.bytes_down - last.bytes_down,
        )
