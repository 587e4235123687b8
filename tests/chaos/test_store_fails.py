"""A store that cannot keep something for a while: the rounds wait for it and then go on."""

from concurrent.futures import Future

import httpx
import pytest
from structlog.testing import capture_logs

from shoal.core.errors import StorageFull
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
