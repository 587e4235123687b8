"""A coordinator on a home on disk, with a clock that stands still, behind a client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.limits import Limits
from shoal.server.metrics import Metrics
from shoal.server.space import measure
from shoal.store.blobs import FolderBlobs
from shoal.store.sql import SqlStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from tests.server.conftest import Served, Signing, delta, report_body


def open_home(home: Path, clock: ManualClock, limits: Limits) -> Coordinator:
    metrics = Metrics()
    store, blobs = SqlStore(home / "shoal.db", metrics.appended), FolderBlobs(home / "blobs")
    return Coordinator(store, blobs, clock, limits, lambda: measure(home), metrics)


NO_LIMITS = Limits()


@contextmanager
def serving(
    home: Path, clock: ManualClock, limits: Limits = NO_LIMITS, devices: set[str] | None = None, **options: bool
) -> Iterator[Served]:
    coordinator = open_home(home, clock, limits)
    admin = coordinator.identities.issue("admin", clock())
    enrolment = coordinator.identities.issue("enrolment", clock())
    with (
        InMemoryTransport(build_app(coordinator, **options)) as transport,
        httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client,
    ):
        yield Served(client, coordinator, clock, admin, enrolment, devices or set())


def train(served: Served, task: str, rounds: range, value: float = 1.0) -> None:
    """Let bob alone do these rounds of a task whose goal is 1."""
    for number in rounds:
        given = served.check_in("bob", wait=5.0).assignment
        assert given is not None
        answer = served.report("bob", given.id, report_body(delta(value / number)))
        assert answer.status_code == 200, answer.text
        assert served.versions(task, after=number - 1).versions


def until(served: Served, task: str, condition: Callable[[], bool]) -> None:
    """Let the coordinator's loop turn until something holds, by calls that it holds for a moment."""
    for _ in range(300):
        if condition():
            return
        served.versions(task, after=999, wait=0.02)
    raise AssertionError("it never came to hold")
