"""A database of the first Shoal, with data in it, is brought up to date and loses nothing."""

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from shoal.core.errors import CorruptStore, OlderDatabase
from shoal.rounds.events import CheckedIn
from shoal.rounds.replay import replay
from shoal.store import migrations, tables
from shoal.store.migrations import migrate
from shoal.store.sql import SqlStore, transaction
from shoal.store.store import DeviceRecord
from shoal.wire.signing import key_id

FIRST = Path(__file__).parent / "schemas" / "0001.sql"
"""What the first Shoal wrote: a task in its second round, two devices, two tokens, an update, a snapshot."""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "it's 100% old" / "shoal.db"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(FIRST.read_text())
    connection.close()
    return path


def migrated(path):
    with transaction(path) as connection:
        return migrate(connection)


def content(path):
    connection = sqlite3.connect(path)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    finally:
        connection.close()


def test_an_older_database_is_left_alone_and_the_command_is_named(old):
    before = content(old)
    with pytest.raises(OlderDatabase) as refusal:
        SqlStore(old)
    assert "revision 0001" in refusal.value.problem
    assert refusal.value.fix.endswith(f"shoal server migrate --home {shlex.quote(str(old.parent))}")
    assert content(old) == before


def test_everything_is_there_after_migrating(old):
    before = content(old)
    assert migrated(old) == ("0001", tables.REVISION)
    after = content(old)
    assert after.pop("alembic_version") == [(tables.REVISION,)]
    for made in ("pins", "secrets", "refused"):
        assert after.pop(made) == []
    assert before.pop("schema") == [(1,)]
    assert (len(before.pop("snapshots")), after.pop("snapshots")) == (1, [])
    kept = [(number, name, key, *times) for number, _, name, key, _, *times in before.pop("devices")]
    moved = after.pop("devices")
    assert [(number, name, key, *times) for number, _, name, key, *times, _, _, _ in moved] == kept
    assert [row[1] for row in moved] == [key_id(row[3]) for row in moved]
    assert after.pop("tokens") == [(*row, None, 0, "[]", None) for row in before.pop("tokens")]
    assert after == before
    store = SqlStore(old)
    assert [position for position, _ in store.events("plain-1")] == [1, 2, 3, 4, 5]
    assert [record.event for _, record in store.events("plain-1", 4)] == [CheckedIn("alice")]
    assert [device.name for device in store.devices()] == ["bob", "alice"]
    state = replay(record for _, record in store.events("plain-1"))
    assert (state.round, state.latest.digest, list(state.leases)) == (2, "1" * 64, ["alice"])
    assert store.append("plain-1", [], expect=5, epoch=1) == 5
    store.close()


def test_what_is_new_works_after_migrating(old):
    migrated(old)
    store = SqlStore(old)
    store.saw({"bob": 7.0})
    store.pin("plain-1", 1)
    assert (store.seen(), store.pins()) == ({"bob": 7.0}, [("plain-1", 1)])
    store.close()


def test_migrating_again_changes_nothing(old):
    migrated(old)
    before = content(old)
    assert migrated(old) == (tables.REVISION, tables.REVISION)
    assert content(old) == before


def test_a_migration_that_fails_leaves_the_database_as_it_was(old):
    before = content(old)
    with pytest.raises(ZeroDivisionError), transaction(old) as connection:
        raise ZeroDivisionError(migrate(connection))
    assert content(old) == before


def test_a_database_of_something_else_is_not_migrated(tmp_path):
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(CorruptStore, match="something else"):
        migrated(tmp_path / "x.db")


def test_migrated_tables_are_those_of_a_new_database(old, make_store):
    migrated(old)
    made = make_store()
    made.close()
    with transaction(old) as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    assert columns(old) == columns(made.database.path)


def columns(path):
    query = """SELECT made.name, part.name, part.type, part."notnull", part.pk
        FROM sqlite_master AS made, pragma_table_info(made.name) AS part ORDER BY made.name, part.cid"""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_the_last_migration_is_the_revision_of_the_tables():
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [tables.REVISION]


def test_enrolling_again_keeps_when_a_device_called(store):
    bob = DeviceRecord("1", "bob", "key", 1.0)
    store.enrol(bob, None)
    store.saw({"bob": 5.0, "stranger": 6.0})
    store.enrol(bob, None)
    assert store.seen() == {"bob": 5.0}
