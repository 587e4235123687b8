"""A store that cannot keep something for a while: the rounds wait for it and then go on."""

from concurrent.futures import Future

import httpx
import pytest
from structlog.testing import capture_logs

from shoal.core.errors import StorageFull, StoreError
from shoal.rounds.events import Committed
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.store import Entry
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from tests.server.conftest import Served, Signing, delta, report_body, spec


class Full(MemoryStore):
    """Has no space for the next versions, or for clearing up, as often as it is told."""

    def __init__(self, commits: int = 0, discards: int = 0) -> None:
        super().__init__()
        self.commits = commits
        self.discards = discards

    def submit(self, entry: Entry) -> Future[int]:
        if self.commits and isinstance(entry.events[0].event, Committed):
            self.commits -= 1
            failed: Future[int] = Future()
            failed.set_exception(StorageFull("no space left", "free some"))
            return failed
        return super().submit(entry)

    def discard(self, digests) -> None:
        if self.discards:
            self.discards -= 1
            raise StorageFull("no space left", "free some")
        super().discard(digests)


@pytest.mark.parametrize(
    ("store", "said"),
    [(Full(commits=3), "round not kept"), (Full(discards=1), "updates not deleted")],
    ids=["commit", "discard"],
)
def test_rounds_go_on(store: Full, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shoal.server.running.FULL_DISK_SECONDS", 0.0)
    clock = ManualClock()
    coordinator = Coordinator(store, MemoryBlobs(), clock)
    tokens = [coordinator.identities.issue(role, clock()) for role in ("admin", "enrolment")]
    with (
        capture_logs() as logs,
        InMemoryTransport(build_app(coordinator)) as transport,
        httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client,
    ):
        served = Served(client, coordinator, clock, *tokens)
        served.publish(spec(rounds=2, goal=1))
        for number in (1, 2):
            given = served.check_in("bob").assignment
            assert given is not None
            assert served.report("bob", given.id, report_body(delta(1.0))).status_code == 200
            assert [version.number for version in served.versions("plain-1", after=number - 1).versions] == [number]
    assert (store.commits, store.discards) == (0, 0)
    assert said in {line["event"] for line in logs}


class Gone(MemoryStore):
    """Can neither be written nor read for a while, as a database that is being restarted."""

    gone = False

    def submit(self, entry: Entry) -> Future[int]:
        if not self.gone:
            return super().submit(entry)
        failed: Future[int] = Future()
        failed.set_exception(StoreError("cannot be reached", "see that it runs"))
        return failed

    def snapshot(self, stream: str):
        if self.gone:
            raise StoreError("cannot be reached", "see that it runs")
        return super().snapshot(stream)


def test_nothing_is_acknowledged_while_the_database_is_gone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shoal.server.running.FULL_DISK_SECONDS", 0.0)
    store, clock = Gone(), ManualClock()
    coordinator = Coordinator(store, MemoryBlobs(), clock)
    tokens = [coordinator.identities.issue(role, clock()) for role in ("admin", "enrolment")]
    with (
        InMemoryTransport(build_app(coordinator)) as transport,
        httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client,
    ):
        served = Served(client, coordinator, clock, *tokens)
        served.publish(spec(rounds=1, goal=2))
        given = served.check_in("bob").assignment
        assert given is not None
        store.gone = True
        for _ in range(3):  # a repeat must not find the receipt of what was never kept
            assert served.report("bob", given.id, report_body(delta(1.0))).status_code == 503
        held = served.client.get("/v1/tasks/plain-1/versions?after=0&wait=0", headers=served.people())
        assert held.status_code == 503
        store.gone = False
        assert served.report("bob", given.id, report_body(delta(1.0))).status_code == 200
        events = [type(record.event).__name__ for _, record in store.events("plain-1")]
        assert events == ["Published", "CheckedIn", "Reported"]
