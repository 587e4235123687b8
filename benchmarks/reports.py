"""x"""

import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

from shoal.rounds.events import Recorded, Reported
from shoal.store.sql import SqlStore
from shoal.store.store import Entry

GROUP = 128


def figures(reports: int) -> Mapping[str, float]:
    """Measure how many reports a second become durable when a group of devices waits at any time."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(Path(folder) / "shoal.db")
        epoch = store.lead("t")
        began = time.perf_counter()
        waiting: list[Future[int]] = []
        for number in range(reports):
            report = Reported(f"a{number}", f"d{number}", f"u{number}", 7500, 1 << 16, {"loss": 1.0})
            bytes_ = {report.digest: bytes(7500)}
            waiting.append(store.submit(Entry("t", [Recorded(0.0, report)], number, epoch, bytes_)))
            if len(waiting) == GROUP:
                waiting.pop(0).result()
        for durable in waiting:
            durable.result()
        seconds = time.perf_counter() - began
        store.close()
    return {"durable_reports_per_s": reports / seconds}
