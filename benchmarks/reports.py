"""How many reports become durable: updates of 7.5 kB, each of them a transaction's part with synchronous FULL.

`durable_reports_per_s` is that of the store by itself: events with updates appended to SQLite in a folder of the
system's temporary files, in groups, 128 waiting at any time; by the clock, so that other work on the machine counts
against it. `durable_reports_per_cpu_s` is the same for each CPU second of this process.

`http_reports_per_cpu_s` is the whole way for each CPU second of a real `shoal server`: devices that have work send
their signed reports over 128 open connections; the server checks signature, names, shapes, values and digest, makes
the report durable in the same store, and answers with a signed receipt. `http_reports_per_s` is the same by the clock,
with the devices' own work on the same processors: the busier these are, the smaller the groups, the dearer each report.
"""

import asyncio
import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from processes import TICKS, cpu_seconds
from traffic import Caller, Line, coordinator, enrol, publish

from shoal.core.receipt import Receipt
from shoal.core.types import Assignment
from shoal.rounds.events import Recorded, Reported
from shoal.store.sql import SqlStore
from shoal.store.store import Entry
from shoal.wire.codec import encode_trees, frame
from shoal.wire.messages import CheckInReply, ReportHead, decode

TASK = "reports"
WAITING = 128
BYTES = 7500
ELEMENTS = BYTES // 4


def figures(reports: int, devices: int) -> Mapping[str, float]:
    """Measure the store by itself, then the whole way."""
    return {**stored(reports), **asyncio.run(sent(devices))}


def stored(reports: int) -> Mapping[str, float]:
    """Measure the store by itself."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(Path(folder) / "shoal.db")
        epoch = store.lead("t")
        entries = [_entry(number, epoch) for number in range(reports)]
        began, cpu_began = time.perf_counter(), time.process_time()
        waiting: deque[Future[int]] = deque()
        for entry in entries:
            waiting.append(store.submit(entry))
            if len(waiting) == WAITING:
                waiting.popleft().result()
        for durable in waiting:
            durable.result()
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu_began
        store.close()
    return {"durable_reports_per_s": reports / seconds, "durable_reports_per_cpu_s": reports / spent}


def _entry(number: int, epoch: int) -> Entry:
    data = number.to_bytes(8, "big") + bytes(BYTES - 8)
    digest = hashlib.sha256(data).hexdigest()
    report = Reported(f"a{number}", f"d{number}", digest, BYTES, 1 << 16, {"loss": 1.0})
    return Entry("t", [Recorded(0.0, report)], number, epoch, {digest: data})


async def sent(devices: int) -> Mapping[str, float]:
    """Measure reports over HTTP, one of each device."""
    with coordinator() as server:
        callers = await enrol(server, devices)
        publish(server, TASK, goal=devices + 1, elements=ELEMENTS)
        lines = [await Line.open(server) for _ in range(min(WAITING, devices))]
        shares = [callers[start :: len(lines)] for start in range(len(lines))]
        work = await asyncio.gather(*(_check_in(line, share) for line, share in zip(lines, shares, strict=True)))
        before, began = cpu_seconds(server.pid), time.perf_counter()
        await asyncio.gather(*(_report(line, given) for line, given in zip(lines, work, strict=True)))
        seconds, spent = time.perf_counter() - began, cpu_seconds(server.pid) - before
        for line in lines:
            line.close()
    return {"http_reports_per_cpu_s": devices / max(spent, 1 / TICKS), "http_reports_per_s": devices / seconds}


async def _check_in(line: Line, callers: Sequence[Caller]) -> list[tuple[Caller, Assignment]]:
    found = list[tuple[Caller, Assignment]]()
    for caller in callers:
        given = decode(await line.call(caller.check_in(TASK)), CheckInReply).assignment
        if given is None:
            raise SystemExit(f"{caller.name} got no work")
        found.append((caller, given))
    return found


async def _report(line: Line, work: Sequence[tuple[Caller, Assignment]]) -> None:
    for caller, given in work:
        # the devices' updates differ, so that each is kept by itself
        update = np.random.default_rng(given.seed).standard_normal(ELEMENTS, np.float32)
        data = encode_trees({"delta": {"w": update}})
        head = ReportHead(hashlib.sha256(data).hexdigest(), len(data), 1 << 16, {"loss": 1.0})
        body = frame(head, data)
        receipt = decode(await line.call(caller.call("POST", f"/v1/assignments/{given.id}/report", body)), Receipt)
        if receipt.digest != head.digest:
            raise SystemExit(f"a receipt for {receipt.digest}, {head.digest} was sent")
