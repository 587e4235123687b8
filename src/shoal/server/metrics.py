"""What a coordinator counts, in the text format of Prometheus.

Labels are names of tasks, codes of errors and the few words that the help texts list: never devices, which would make
as many series as there are devices. Every coordinator has a registry of its own.
"""

from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from shoal.core.errors import Gone, ShoalError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class Metrics:
    """Counters that grow as things happen, and gauges that are read when somebody asks."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        check_ins = Counter(
            "shoal_check_ins", "Check-ins by outcome: assigned, waiting", ["outcome"], registry=registry
        )
        self.assigned, self.waiting = check_ins.labels("assigned"), check_ins.labels("waiting")
        self.assignments = Counter("shoal_assignments", "Places given to devices", ["task"], registry=registry)
        self.reports = Counter(
            "shoal_reports",
            "Reports by outcome: accepted, repeated, refused, late; code is that of the error",
            ["task", "outcome", "code"],
            registry=registry,
        )
        self.rounds = Counter(
            "shoal_rounds", "Rounds by outcome: committed, abandoned", ["task", "outcome"], registry=registry
        )
        self.ended = Counter(
            "shoal_tasks_ended", "Tasks by how they ended: finished, failed, cancelled", ["phase"], registry=registry
        )
        self.bytes_in = Counter("shoal_received_bytes", "Bytes of request bodies", registry=registry)
        self.bytes_out = Counter("shoal_sent_bytes", "Bytes of response bodies", registry=registry)
        self.fold_seconds = Histogram(
            "shoal_fold_seconds", "Combining a round's updates", ["task"], buckets=SECONDS, registry=registry
        )
        self.commit_seconds = Histogram(
            "shoal_commit_seconds",
            "From a round's last report until its version is durable",
            ["task"],
            buckets=SECONDS,
            registry=registry,
        )
        self._append_seconds = Histogram(
            "shoal_store_append_seconds", "From a write's call until it is durable", buckets=SECONDS, registry=registry
        )
        self._group_size = Histogram(
            "shoal_store_group_size", "Writes made durable in one transaction", buckets=GROUPS, registry=registry
        )
        self._gauges = _gauges(registry)
        Info("shoal", "The coordinator's version", registry=registry).info({"version": version("shoal")})

    def appended(self, waited: Sequence[float]) -> None:
        """Count one transaction of the store, with the seconds that each of its writes waited; from any thread."""
        self._group_size.observe(len(waited))
        for seconds in waited:
            self._append_seconds.observe(seconds)

    @contextmanager
    def reporting(self, task: str) -> Iterator[None]:
        """Count the refusal of a report, whatever refused it."""
        try:
            yield
        except ShoalError as error:
            outcome = "late" if isinstance(error, Gone) else "refused"
            self.reports.labels(task, outcome, error.code).inc()
            raise

    def text(self, **values: float) -> bytes:
        """Return everything in Prometheus' text format; `values` are those of the gauges, by name without `shoal_`."""
        for name, gauge in self._gauges.items():
            gauge.set(values[name])
        return generate_latest(self._registry)


def _gauges(registry: CollectorRegistry) -> dict[str, Gauge]:
    helps = {
        "open_long_polls": "Requests that are held until something happens",
        "devices_enrolled": "Devices that joined and were not revoked",
        "devices_seen_last_hour": "Devices that called in the last hour",
        "tasks_running": "Tasks that are not over",
        "disk_used_bytes": "What lies in the home",
        "disk_free_bytes": "What is free on the disk of the home",
        "disk_quota_bytes": "The most that may lie in the home; +Inf without a quota",
        "blobs_removed": "Blobs that housekeeping removed since the start",
    }
    return {name: Gauge(f"shoal_{name}", text, registry=registry) for name, text in helps.items()}


class CountBytes:
    """An ASGI application around another one, which counts the bytes of the bodies that pass."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics = self._metrics

        async def receiving() -> Message:
            message = await receive()
            metrics.bytes_in.inc(len(message.get("body", b"")))
            return message

        async def sending(message: Message) -> None:
            metrics.bytes_out.inc(len(message.get("body", b"")))
            await send(message)

        await self._app(scope, receiving, sending)
