"""The store in PostgreSQL: the laws, its faults, its migrations, and several processes on one database."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from shoal.core.errors import ConfigurationError, CorruptStore, OlderDatabase, StoreError, StreamConflict
from shoal.rounds.events import CheckedIn, Recorded, Reported, Ticked
from shoal.store import postgres as postgres_database
from shoal.store import tables
from shoal.store.migrations import migrate
from shoal.store.sql import SqlStore, transaction
from shoal.store.store import Entry
from shoal.testing.laws import store_laws
from shoal.testing.postgres import PostgresProcess
from shoal.testing.stores import EVENTS

pytestmark = pytest.mark.processes


def ticks(number: int = 1) -> list[Recorded]:
    return [Recorded(float(at), Ticked()) for at in range(number)]


def reported(number: int, weight: int = 1) -> list[Recorded]:
    return [Recorded(0.0, Reported(f"a{number}", f"d{number}", "0" * 64, 1, weight))]


@pytest.fixture
def url(postgres: PostgresProcess) -> str:
    return postgres.database()


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(url)) as opened:
        yield opened


def test_the_laws(postgres: PostgresProcess):
    urls: list[str] = []

    def make() -> SqlStore:
        urls.append(postgres.database())
        return SqlStore(urls[-1])

    def reopen(store: SqlStore) -> SqlStore:
        store.close()
        return SqlStore(urls[-1])

    store_laws(make, reopen)


def test_every_commit_waits_for_the_disk_and_every_wait_ends(store: SqlStore):
    def setting(name: str) -> str:
        return store._read(lambda connection: connection.exec_driver_sql(f"SHOW {name}").scalar_one())

    names = ("synchronous_commit", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    assert [setting(name) for name in names] == ["on", "10s", "30s", "30s"]


@pytest.mark.parametrize(("setting", "found"), [("fsync", "on"), ("server_encoding", "UTF8")])
def test_a_server_that_may_lose_or_change_something_is_refused(url: str, setting: str, found: str, monkeypatch):
    monkeypatch.setattr(postgres_database, "NEEDED", {setting: ("other", "set it")})
    with pytest.raises(ConfigurationError, match=f"has {setting} = {found}, not other"):
        SqlStore(url)


def test_a_wrong_password_is_said_and_not_shown(url: str):
    secret = url.partition("shoal:")[2].partition("@")[0]
    with pytest.raises(StoreError, match=r"cannot be reached: .*password authentication failed") as refusal:
        SqlStore(url.replace(secret, "wrong-secret"))
    assert "wrong-secret" not in str(refusal.value)


def test_a_password_among_the_parameters_is_refused():
    with pytest.raises(ConfigurationError, match="PGPASSFILE") as refusal:
        SqlStore("postgresql://shoal@/db?password=hidden")
    assert "hidden" not in str(refusal.value)


def test_a_database_of_something_else_is_left_alone(url: str, postgres: PostgresProcess):
    schema = url.rpartition("%3D")[2]
    postgres.execute(f"CREATE TABLE {schema}.songs (title text)")
    with pytest.raises(CorruptStore, match="is the database of something else"):
        SqlStore(url)


def test_what_the_database_cannot_hold_fails_alone(store: SqlStore):
    good = store.submit(Entry("good", reported(0), 0, 0))
    bad = store.submit(Entry("bad", reported(0, weight=2**70), 0, 0))
    more = store.submit(Entry("good", reported(1), 1, 0))
    assert (good.result(30), more.result(30)) == (1, 2)
    with pytest.raises(StoreError, match="out of range"):
        bad.result(30)
    assert store.streams() == ["good"]


def test_the_index_refuses_what_a_check_let_pass(store: SqlStore):
    store.append("a", reported(0), expect=0, epoch=0)
    row = {"stream": "a", "assignment": "a0", "device": "d0", "digest": "", "weight": 1, "at": 0.0}
    future = store._writer.submit(lambda connection: connection.execute(tables.accepted.insert(), [row]))
    with pytest.raises(StoreError, match="unique constraint"):
        future.result(30)


def test_of_two_processes_one_leads_and_one_appends(url: str, store: SqlStore):
    with closing(SqlStore(url)) as other, ThreadPoolExecutor(4) as pool:
        # both make the stream's first row at once
        epochs = list(pool.map(lambda one: one.lead("new"), [store, other] * 4))
        assert sorted(epochs) == list(range(1, 9))
        entry = Entry("new", ticks(), 0, 8)
        futures = [one.submit(entry) for one in (store, other) * 4]
        errors = [future.exception(30) for future in futures]
        assert sum(error is None for error in errors) == 1
        assert sum(isinstance(error, StreamConflict) for error in errors) == 7
        assert len(list(other.events("new"))) == 1


def test_streams_of_two_processes_grow_side_by_side(url: str, store: SqlStore):
    with closing(SqlStore(url)) as other:
        futures = [
            one.submit(Entry(name, [Recorded(0.0, CheckedIn(str(at)))], at, 0))
            for at in range(40)
            for one, name in ((store, "a"), (other, "b"))
        ]
        assert all(future.result(30) for future in futures)
        assert [len(list(store.events(name))) for name in store.streams()] == [40, 40]


def test_a_server_that_is_gone_is_said_and_found_again(tmp_path):
    with PostgresProcess() as server, closing(SqlStore(server.database())) as store:
        store.append("a", ticks(3), expect=0, epoch=0)
        server.stop()
        with pytest.raises(StoreError, match="cannot be reached"):
            store.append("a", ticks(), expect=3, epoch=0)
        with pytest.raises(StoreError, match="cannot be reached"):
            list(store.events("a"))
        server.start()
        assert store.append("a", ticks(), expect=3, epoch=0) == 4
        assert len(list(store.events("a"))) == 4


@contextmanager
def at_revision_3(url: str) -> Iterator[None]:
    store = SqlStore(url)
    store.append("plain-1", [Recorded(float(at), event) for at, event in enumerate(EVENTS)], expect=0, epoch=0)
    store.close()
    with transaction(url) as connection:
        connection.execute(text("DROP TABLE secrets, refused"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    yield


def test_an_older_database_is_migrated_and_loses_nothing(url: str):
    with at_revision_3(url):
        with pytest.raises(OlderDatabase, match="revision 0003") as refusal:
            SqlStore(url)
        assert "shoal server migrate" in refusal.value.fix
        with transaction(url) as connection:
            assert migrate(connection) == ("0003", tables.REVISION)
            assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        with closing(SqlStore(url)) as store:
            assert [record.event for _, record in store.events("plain-1")] == list(EVENTS)
            assert store.secret("key", b"new") == b"new"


def test_a_migration_that_fails_leaves_the_database_as_it_was(url: str):
    def fail(done: Callable[[], object]) -> None:
        raise ZeroDivisionError(done)

    with at_revision_3(url):
        with pytest.raises(ZeroDivisionError), transaction(url) as connection:
            fail(migrate(connection))
        with pytest.raises(OlderDatabase):
            SqlStore(url)
