"""SQLite: one file, write-ahead log, synchronous FULL."""

import os
import shlex
import sqlite3
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from shoal.core.errors import CorruptStore, StorageFull, StoreError
from shoal.store import database
from shoal.store.events import RESTORE


class SqliteDatabase:
    """The file at a path, which is made, for its owner alone, where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.migration = f"shoal server migrate --home {shlex.quote(str(path.parent))}"
        # Parameters hold what devices sent: they do not belong in the text of an error.
        # Readers are brief and as many as there are threads: none is to wait for another's connection.
        self.engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True, max_overflow=-1)
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)

    def check(self) -> None:
        """Make the file; raise CorruptStore when it is damaged."""
        # SQLite would create it readable for all; its log and index files take the mode of the database.
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        with self.engine.connect() as connection:
            problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if problem != "ok":
            raise CorruptStore(f"{self.path} is damaged: {problem}", RESTORE)

    def explain(self, error: DBAPIError) -> StoreError:
        """Return what an error of SQLite means."""
        match error.orig:
            case sqlite3.Error(sqlite_errorcode=int() as extended):
                code = extended & 0xFF  # the rest says more exactly what it was, such as SQLITE_IOERR_WRITE
            case _:
                code = sqlite3.SQLITE_ERROR
        if code == sqlite3.SQLITE_FULL:
            return StorageFull(f"no space is left for {self.path}", "free some, then send again")
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return CorruptStore(f"{self.path} is not a sound database: {error.orig}", RESTORE)
        if code == sqlite3.SQLITE_BUSY:
            return StoreError(
                f"{self.path} is locked for over {database.BUSY_SECONDS:g} s",
                "stop the other process that writes to it",
            )
        return StoreError(f"{self.path}: {error.orig}", "look at its permissions and at the disk's health")


def _configure(connection: sqlite3.Connection, record: object) -> None:
    del record
    connection.isolation_level = None  # the driver's own transactions know no savepoints: `_begin` opens ours
    for pragma in (
        f"busy_timeout = {int(database.BUSY_SECONDS * 1000)}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes fails when another has written in between: lock at the start.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
