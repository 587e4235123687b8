"""What is particular to the store in SQLite: the file, its faults, the writer thread and its groups."""

import sqlite3
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import StatementError

from shoal.core.errors import ConfigurationError, CorruptStore, NewerDatabase, StorageFull, StoreError, StreamConflict
from shoal.rounds.events import CheckedIn, Recorded, Reported, Ticked
from shoal.store import database, sql
from shoal.store.sql import SqlStore
from shoal.store.store import Entry
from shoal.store.tables import REVISION, accepted
from shoal.testing.stores import EVENTS


def records(*events):
    return [Recorded(float(at), item) for at, item in enumerate(events)]


def reported(number, weight=1):
    return records(Reported(f"a{number}", f"d{number}", "0" * 64, 1, weight))


def rows(path, query):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def execute(path, *statements):
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


@pytest.fixture
def blocked(store):
    """Keep the writer busy until the test says `set`."""
    started, go = threading.Event(), threading.Event()

    def wait(connection):
        started.set()
        assert go.wait(30)

    store._writer.submit(wait)
    assert started.wait(30)
    yield go
    go.set()


def test_only_the_owner_may_read_the_file_and_its_log(store):
    store.lead("a")
    files = list(store.database.path.parent.iterdir())
    assert {path.name for path in files} >= {"shoal.db", "shoal.db-wal"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_every_connection_is_durable(store):
    def pragma(name):
        return store._read(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    found = {name: pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_projections_are_written_with_their_events(store):
    store.append("t", records(*EVENTS), expect=0, epoch=0)
    assert rows(store.database.path, "SELECT * FROM accepted") == [("t", "a1", "zoe", "1" * 64, 5 << 16, 4.0)]
    assert rows(store.database.path, "SELECT * FROM versions") == [("t", 1, 1, "2" * 64, "3" * 64)]


def test_a_sqlite_url_is_a_path(tmp_path):
    SqlStore(f"sqlite:///{tmp_path}/a.db").close()
    SqlStore(tmp_path / "a.db").close()


@pytest.mark.parametrize("url", ["mysql://me:secret@host/db", "sqlite://", "sqlite:///:memory:", "sqlite:/x://"])
def test_other_urls_are_refused_without_their_password(url):
    with pytest.raises(ConfigurationError) as refusal:
        SqlStore(url)
    assert "secret" not in str(refusal.value)


def test_a_newer_database_is_left_alone(make_store):
    store = make_store()
    store.close()
    execute(store.database.path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerDatabase, match=f"{store.database.path} has schema revision 9999.* {REVISION}"):
        SqlStore(store.database.path)


def test_a_database_of_something_else_is_left_alone(tmp_path):
    execute(tmp_path / "x.db", "CREATE TABLE songs (title TEXT)")
    with pytest.raises(CorruptStore, match=r"x\.db is the database of something else"):
        SqlStore(tmp_path / "x.db")
    assert rows(tmp_path / "x.db", "SELECT name FROM sqlite_master") == [("songs",)]


def test_a_file_that_is_no_database_is_said(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(CorruptStore, match=r"x\.db"):
        SqlStore(path)


def damage(path):
    """Overwrite every page but the first, which holds the schema."""
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(data)


def test_a_damaged_database_is_not_opened(make_store):
    store = make_store()
    store.append("a", records(*EVENTS), expect=0, epoch=0)
    store.close()
    damage(store.database.path)
    with pytest.raises(CorruptStore, match=str(store.database.path)):
        SqlStore(store.database.path)


def test_damage_found_while_reading_is_said(store):
    store.append("a", records(*EVENTS), expect=0, epoch=0)
    execute(store.database.path, "UPDATE events SET data = x'00' WHERE position = 3")
    with pytest.raises(CorruptStore, match="no event"):
        list(store.events("a"))


def limit_pages(store, pages):
    """Let SQLite answer as on a full disk."""
    event.listen(store._engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}").close())
    store._engine.dispose()


def test_a_full_disk_is_said_and_what_was_there_stays(make_store):
    store = make_store()
    store.append("a", records(Ticked()), expect=0, epoch=0)
    limit_pages(store, 60)
    with pytest.raises(StorageFull, match=f"no space is left for {store.database.path}"):
        store.submit(Entry("a", records(Ticked()), 1, 0, {"0" * 64: bytes(1 << 20)})).result(30)
    assert len(list(store.events("a"))) == 1
    assert store.inline("0" * 64) is None
    assert store.append("a", records(Ticked()), expect=1, epoch=0) == 2
    store.close()


def test_a_database_locked_by_another_process_is_said(make_store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    store = make_store()
    other = sqlite3.connect(store.database.path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.lead("a")
    other.rollback()
    other.close()
    assert store.lead("a") == 1
    store.close()


def test_two_processes_on_one_file_fence_each_other(store):
    epoch = store.lead("a")
    other = SqlStore(store.database.path)
    later = other.lead("a")
    with pytest.raises(StreamConflict, match=f"epoch {later}, not {epoch}"):
        store.append("a", records(Ticked()), expect=0, epoch=epoch)
    other.append("a", records(Ticked()), expect=0, epoch=later)
    assert len(list(store.events("a"))) == 1
    other.close()


def test_a_reader_is_no_obstacle_to_the_writer(store):
    store.append("a", records(*[Ticked()] * 1500), expect=0, epoch=0)
    reading = store.events("a")
    next(reading)
    store.append("a", records(Ticked()), expect=1500, epoch=0)
    assert len(list(reading)) == 1500


def test_what_is_submitted_meanwhile_is_one_transaction(store, blocked):
    commits = []
    event.listen(store._engine, "commit", commits.append)
    futures = [store.submit(Entry("a", reported(n), n, 0)) for n in range(100)]
    blocked.set()
    assert [future.result(30) for future in futures] == list(range(1, 101))
    assert len(commits) == 2


def test_leading_takes_its_turn_among_appends(store, blocked):
    before = store.submit(Entry("a", reported(0), 0, 0))
    epoch = store._writer.submit(lambda connection: sql.rows.lead(connection, "a"))
    late = store.submit(Entry("a", reported(1), 1, 0))
    right = store.submit(Entry("a", reported(1), 1, 1))
    blocked.set()
    assert (before.result(30), epoch.result(30), right.result(30)) == (1, 1, 2)
    assert isinstance(late.exception(30), StreamConflict)


BAD = [
    (Entry("bad", reported(0, weight=2**70), 0, 0), OverflowError),
    (Entry("bad", reported(0), 0, 0, {"0" * 64: "text"}), StatementError),
]


@pytest.mark.parametrize(("entry", "error"), BAD)
def test_what_the_database_cannot_hold_fails_alone(store, blocked, entry, error):
    good = [store.submit(Entry("good", reported(n), n, 0)) for n in range(3)]
    bad = store.submit(entry)
    more = store.submit(Entry("good", reported(3), 3, 0))
    blocked.set()
    assert [future.result(30) for future in (*good, more)] == [1, 2, 3, 4]
    assert isinstance(bad.exception(30), error)
    assert store.streams() == ["good"]


def test_a_statement_that_the_database_refuses_fails_alone(store, blocked):
    bad = store._writer.submit(lambda connection: connection.exec_driver_sql("SELECT ?", (object(),)))
    good = store.submit(Entry("good", reported(0), 0, 0))
    blocked.set()
    assert good.result(30) == 1
    with pytest.raises(StoreError, match=r"shoal\.db"):
        bad.result(30)


def test_another_process_cannot_make_an_assignment_count_twice(store):
    """The index refuses what the check before it let pass."""
    store.append("a", reported(0), expect=0, epoch=0)
    row = {"stream": "a", "assignment": "a0", "device": "d0", "digest": "", "weight": 1, "at": 0.0}
    future = store._writer.submit(lambda connection: connection.execute(accepted.insert(), [row]))
    with pytest.raises(StoreError, match="UNIQUE"):
        future.result(30)


def test_a_cancelled_append_is_not_written(store, blocked):
    future = store.submit(Entry("a", reported(0), 0, 0))
    assert future.cancel()
    blocked.set()
    assert store.append("a", reported(1), expect=0, epoch=0) == 1
    with pytest.raises(CancelledError):
        future.result(30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_leaves_nobody_waiting(store, blocked):
    dying = store._writer.submit(lambda connection: sys.exit())
    behind = [store.submit(Entry("a", reported(n), n, 0)) for n in range(300)]
    blocked.set()
    for future in (dying, *behind):
        with pytest.raises(StoreError):
            future.result(30)
    with pytest.raises(StoreError):
        store.append("a", reported(0), expect=0, epoch=0)
    assert list(store.events("a")) == []


def test_a_caller_does_not_wait_for_ever(store, blocked, monkeypatch):
    monkeypatch.setattr(sql, "PATIENCE", 0.01)
    with pytest.raises(StoreError, match="not durable within"):
        store.append("a", records(CheckedIn("zoe")), expect=0, epoch=0)
    blocked.set()
    assert store._writer.submit(lambda connection: 1).result(30) == 1
    assert store.streams() == []


def test_closing_does_not_wait_for_ever(make_store, monkeypatch):
    monkeypatch.setattr(sql, "PATIENCE", 0.01)
    store, go = make_store(), threading.Event()
    store._writer.submit(lambda connection: go.wait(30))
    with pytest.raises(StoreError, match="did not finish"):
        store.close()
    go.set()
    monkeypatch.setattr(sql, "PATIENCE", 30.0)
    store.close()


def test_closing_waits_for_those_who_read(tmp_path):
    store, reading, go = SqlStore(tmp_path / "store.db"), threading.Event(), threading.Event()

    def read(connection: Connection) -> int:
        reading.set()
        assert go.wait(30)
        return connection.exec_driver_sql("SELECT 1").scalar_one()

    with ThreadPoolExecutor() as threads:
        found = threads.submit(store._read, read)
        assert reading.wait(30)
        closing = threads.submit(store.close)
        assert not closing.done()
        go.set()
        assert found.result(30) == 1
        closing.result(30)
    assert store._engine.pool.checkedout() == 0
