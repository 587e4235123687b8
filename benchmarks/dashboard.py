"""How the dashboard keeps up: python benchmarks/dashboard.py [--json] [--events 5000] [--rate 1000]

A coordinator on a SQLite home takes so many events a second of one task while a reader follows `/v1/events` over a
socket on the loopback, as a page does. `lag_ms` is from the moment an event is durable until the first frame that has
it is read (0 where the frame was quicker than the disk); `behind` counts events that the last frame does not have.
`first_paint_bytes` is what a browser fetches for the page before its first picture: all of its own files, compressed.
The load generator shares the process and its cores; CPU seconds are those of the whole process.
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import uvicorn

import shoal.server
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import encode
from shoal.rounds.events import Extended
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.serve import open_coordinator
from shoal.wire.watching import frames

DASHBOARD = Path(shoal.server.__file__).parent / "static" / "dashboard"
LATER = "uplot"
"""The library of charts is fetched once there is something to draw."""


class Reader(threading.Thread):
    """Reads frames as a page does, and notes when it saw which number of rounds."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[int, float] = {}
        self.frames = 0
        self.newest = 0
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def run(self) -> None:
        with self._client.stream("GET", "/v1/events") as answer:
            for name, data in frames(answer.iter_raw()):
                if name == "task":
                    self.frames += 1
                    rounds = json.loads(data)["rounds"]
                    self.newest = rounds
                    self.seen[rounds] = time.perf_counter()

    def lag(self, durable: dict[int, float]) -> list[float]:
        """Seconds until each event was in a frame."""
        order = sorted(self.seen)
        found = np.searchsorted(order, list(durable))
        return [
            self.seen[order[at]] - moment for at, moment in zip(found, durable.values(), strict=True) if at < len(order)
        ]


async def drive(here: Coordinator, events: int, rate: float) -> dict[int, float]:
    """Let so many events happen, at this rate as far as the store allows; return when each was durable."""
    writer = here.storage.blobs.writer("published")
    writer.write(encode({"w": np.zeros(4, np.float32)}))
    spec = TaskSpec(
        "busy", {"w": ArraySpec((4,), "float32")}, 1, RoundPlan(goal=1), bounds=Bounds(), initial=writer.commit()
    )
    await here.tasks.publish(spec)
    task, durable = here.tasks.find("busy"), {}

    async def happens(rounds: int) -> None:
        await task.handle(Extended(rounds))
        durable[rounds] = time.perf_counter()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(events):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(happens(number + 2))
    return durable


def measure(events: int, rate: float) -> dict[str, float | int]:
    with tempfile.TemporaryDirectory() as home:
        here = open_coordinator(Path(home))
        token = here.identities.issue("viewer", here.clock())
        server = uvicorn.Server(uvicorn.Config(build_app(here), port=0, log_config=None, ws="none"))
        ready, done = threading.Event(), {}

        async def serve() -> None:
            serving = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
                await asyncio.sleep(0.01)
            done["url"] = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            ready.set()
            await asyncio.to_thread(go.wait)
            done["durable"] = await drive(here, events, rate)
            await asyncio.sleep(0.5)
            here.bell.close()
            server.should_exit = True
            await serving

        go = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        ready.wait(60)
        with httpx.Client(base_url=done["url"], headers={"Accept-Encoding": "gzip"}) as client:
            files = [path for path in DASHBOARD.rglob("*.*") if LATER not in path.parts and path.name != "index.html"]
            names = ["/", *(f"/dashboard/{path.relative_to(DASHBOARD)}" for path in files)]
            size = sum(int(client.get(name).headers["content-length"]) for name in names)
        reader = Reader(done["url"], token)
        reader.start()
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        go.set()
        thread.join()
        reader.join(10)
        after, durable = resource.getrusage(resource.RUSAGE_SELF), done["durable"]
        lags = sorted(reader.lag(durable))
        return {
            "events": events,
            "events_per_s": round(events / (max(durable.values()) - began)),
            "frames": reader.frames,
            "behind": sum(rounds > reader.newest for rounds in durable),
            "lag_ms_median": max(0, round(statistics.median(lags) * 1000)),
            "lag_ms_p99": round(lags[int(len(lags) * 0.99)] * 1000),
            "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            "first_paint_bytes": size,
        }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--json", action="store_true")
    options.add_argument("--events", type=int, default=5000)
    options.add_argument("--rate", type=float, default=1000.0)
    asked = options.parse_args()
    found = measure(asked.events, asked.rate)
    print(json.dumps(found) if asked.json else "\n".join(f"{name:20} {value}" for name, value in found.items()))


if __name__ == "__main__":
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    sys.exit(main())
