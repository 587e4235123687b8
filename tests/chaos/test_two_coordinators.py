"""Two coordinators at once on one database: the later one leads, the other says so and serves nothing stale.

On PostgreSQL `shoal server` lets no second one in; here two are let in, as after a connection that broke unnoticed.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.blobs import FolderBlobs
from shoal.store.sql import SqlStore
from shoal.testing.clock import ManualClock
from shoal.testing.postgres import PostgresProcess
from shoal.testing.transport import InMemoryTransport
from tests.server.conftest import Served, Signing, delta, report_body, spec


def serve(home: Path, database: str | Path, older: Served | None = None) -> Iterator[Served]:
    clock = older.clock if older else ManualClock()
    coordinator = Coordinator(SqlStore(database), FolderBlobs(home / "blobs"), clock)
    admin = older.admin if older else coordinator.identities.issue("admin", clock())
    enrolment = older.enrolment if older else coordinator.identities.issue("enrolment", clock())
    known = older.devices if older else set()
    with (
        InMemoryTransport(build_app(coordinator)) as transport,
        httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client,
    ):
        yield Served(client, coordinator, clock, admin, enrolment, known)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.processes)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    if request.param == "sqlite":
        return tmp_path / "shoal.db"
    server: PostgresProcess = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def older(tmp_path: Path, database: str | Path) -> Iterator[Served]:
    yield from serve(tmp_path, database)


@pytest.fixture
def newer(older: Served, tmp_path: Path, database: str | Path) -> Iterator[Served]:
    older.publish(spec(rounds=2, goal=2))
    older.check_in("bob")
    older.device("alice")
    yield from serve(tmp_path, database, older)


def assigned(served: Served, name: str) -> str:
    given = served.check_in(name).assignment
    assert given is not None
    return given.id


def test_the_older_one_refuses_with_503_says_why_and_the_newer_one_goes_on(older: Served, newer: Served):
    bob = assigned(newer, "bob")
    with capture_logs() as logs:
        refused = older.report("bob", bob, report_body(delta(1.0)))
        again = older.report("bob", bob, report_body(delta(1.0)))
    assert (refused.status_code, refused.json()["code"]) == (503, "superseded")
    assert (again.status_code, again.json()["code"]) == (503, "unavailable")
    assert "another coordinator leads it now" in again.json()["problem"]
    assert again.headers["retry-after"]
    said = [line for line in logs if line["event"] == "task left to another coordinator"]
    assert [line["task"] for line in said] == ["plain-1"]
    assert "is led in epoch 2, not 1" in said[0]["problem"]

    for name in ("bob", "alice"):
        assert newer.report(name, assigned(newer, name), report_body(delta(1.0))).status_code == 200
    [version] = newer.versions("plain-1", after=0).versions
    assert version.reports == 2


def test_a_round_that_the_older_one_was_combining_is_committed_once(older: Served, newer: Served):
    for name in ("bob", "alice"):
        assert newer.report(name, assigned(newer, name), report_body(delta(1.0))).status_code == 200
    assert newer.versions("plain-1", after=0).versions[0].number == 1
    # the older one still believes in round 1, and that alice may have a place in it
    answer = older.client.post("/v1/checkin", json={"training": ["plain"]}, headers=older.device("alice"))
    assert answer.status_code == 503
    held = older.client.get("/v1/tasks/plain-1/versions?after=0&wait=5", headers=older.people())
    assert held.status_code == 503
    store = newer.coordinator.storage.store
    committed = [record for _, record in store.events("plain-1") if type(record.event).__name__ == "Committed"]
    assert len(committed) == 1


def test_bytes_that_the_newer_one_counts_are_not_removed_by_the_older_one(
    older: Served, newer: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", 1)
    bob, body = assigned(newer, "bob"), report_body(delta(1.0))
    receipt = newer.report("bob", bob, body).json()
    assert older.report("bob", bob, body).status_code == 503
    assert newer.coordinator.storage.blobs.namespace(receipt["digest"]) == "updates"


def test_both_sign_receipts_with_one_key(older: Served, newer: Served):
    assert older.coordinator.key.public == newer.coordinator.key.public
