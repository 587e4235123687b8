"""Bytes that changed on disk: seen before they are served, folded or trusted, and named."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from shoal.core.errors import CorruptStore, NewerDatabase
from shoal.server.app import build_app
from shoal.server.serve import open_coordinator
from shoal.store.sql import SqlStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from tests.server.conftest import Served, Signing, delta, report_body, spec


@dataclass
class Homed:
    """A coordinator on disk, opened anew for each `serving`."""

    home: Path
    admin: str = ""
    enrolment: str = ""

    def serving(self) -> Iterator[Served]:
        coordinator = open_coordinator(self.home)
        clock = ManualClock()
        coordinator.clock = clock
        if not self.admin:
            self.admin, self.enrolment = (
                coordinator.identities.issue(role, clock()) for role in ("admin", "enrolment")
            )
        transport = InMemoryTransport(build_app(coordinator))
        with httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client:
            yield Served(client, coordinator, clock, self.admin, self.enrolment)
        transport.close()


def flip(path: Path, at: int = -1) -> None:
    """Change one bit of a byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def blob(home: Path, digest: str) -> Path:
    [path] = (home / "blobs").glob(f"*/*/{digest}")
    return path


@pytest.mark.processes
@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_update_spoils_no_version(tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", 1)
    homed = Homed(tmp_path)
    for served in homed.serving():
        task = served.publish(spec(goal=2)).id
        given = {name: served.check_in(name).assignment for name in ("bob", "alice")}
        receipt = served.report("bob", given["bob"].id, report_body(delta(1.0))).json()  # type: ignore[union-attr]
        devices = served.devices
    if large:
        flip(blob(tmp_path, receipt["digest"]))
    else:
        with sqlite3.connect(tmp_path / "shoal.db") as connection:
            connection.execute("UPDATE inline SET bytes = substr(bytes, 1, length(bytes) - 1) || x'01'")
        connection.close()
    for served in homed.serving():
        served.devices = devices
        answer = served.report("alice", given["alice"].id, report_body(delta(3.0)))  # type: ignore[union-attr]
        assert answer.status_code == 200
        status = served.versions(task, after=0, wait=0.2).status
        assert (status.latest.number, status.attempt, status.phase) == (0, 2, "collecting")
        assert served.check_in("bob").assignment is not None


@pytest.mark.processes
def test_a_damaged_model_is_not_served(tmp_path: Path) -> None:
    homed = Homed(tmp_path)
    for served in homed.serving():
        digest = served.publish(spec()).latest.digest
        path = f"/v1/blobs/{digest}"
        assert served.client.get(path, headers=served.people()).status_code == 200
    flip(blob(tmp_path, digest))
    for served in homed.serving():
        answer = served.client.get(path, headers=served.people())
        assert (answer.status_code, answer.json()["code"]) == (500, "corrupt_store")
        assert digest in answer.json()["problem"]
        assert answer.json()["fix"] == "restore the home from a backup"


@pytest.mark.processes
def test_a_database_whose_pages_changed_is_refused_at_the_start(tmp_path: Path) -> None:
    for served in Homed(tmp_path).serving():
        served.publish(spec())
    path = tmp_path / "shoal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    connection.close()
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = os.urandom(64)
    path.write_bytes(data)
    with pytest.raises(CorruptStore, match=r"(?s)shoal\.db.*restore the home from a backup"):
        open_coordinator(tmp_path)


@pytest.mark.processes
def test_a_newer_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    SqlStore(tmp_path / "shoal.db").close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shoal.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    before = (tmp_path / "shoal.db").read_bytes()
    with pytest.raises(NewerDatabase, match=r"9999.*upgrade Shoal"):
        open_coordinator(tmp_path)
    assert (tmp_path / "shoal.db").read_bytes() == before
