"""PostgreSQL: synchronous commits, one writing transaction at a time by an advisory lock.

Advisory locks are those of https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS. Their second
key is the schema, so that several coordinators may each have a schema of one database.
"""

import os
import socket

import psycopg
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from shoal.core.errors import ConfigurationError, CorruptStore, StorageFull, StoreError
from shoal.store.database import BUSY_SECONDS
from shoal.store.events import RESTORE

CONNECT_SECONDS = 5
WRITING, LEADING = 0x53686F61, 0x53686F62
"""First keys of the lock of a transaction that writes, and of that of the coordinator that leads."""

SESSION = f"""
    SET synchronous_commit = on;
    SET lock_timeout = '{BUSY_SECONDS:g}s';
    SET statement_timeout = '{3 * BUSY_SECONDS:g}s';
    SET idle_in_transaction_session_timeout = '{3 * BUSY_SECONDS:g}s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
"""
"""Whatever the server's own settings: a commit is on disk, nothing waits for ever, and a machine that vanished leaves
its locks within seconds."""

NEEDED = {
    "fsync": ("on", "set it in postgresql.conf: without it a power cut loses what was acknowledged"),
    "server_encoding": ("UTF8", "make the database with ENCODING 'UTF8'"),
}
"""Settings that cannot be changed from here, their values, and what to do."""


class PostgresDatabase:
    """The database at a URL, `postgresql://USER:PASSWORD@HOST/DATABASE`, with any parameters of libpq."""

    def __init__(self, url: URL) -> None:
        if "password" in url.query:
            raise ConfigurationError(
                "a password among the parameters of the database's URL", "write it before the host, or in PGPASSFILE"
            )
        self.name = url.set(query={}).render_as_string(hide_password=True)
        self.migration = "SHOAL_DATABASE=postgresql://... shoal server migrate"
        # Parameters hold what devices sent: they do not belong in the text of an error.
        # Readers are brief and as many as there are threads: none is to wait for another's connection.
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            max_overflow=-1,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "client_encoding": "utf8",
                "application_name": f"shoal {socket.gethostname()}:{os.getpid()}"[:63],
            },
        )
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)

    def check(self) -> None:
        """Raise ConfigurationError for a server that may lose what it has committed, or cannot keep every name."""
        with self.engine.connect() as connection:
            for setting, (needed, way_out) in NEEDED.items():
                found = connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
                if found != needed:
                    raise ConfigurationError(f"{self.name} has {setting} = {found}, not {needed}", way_out)

    def explain(self, error: DBAPIError) -> StoreError:
        """Return what an error of PostgreSQL means, without the values of rows."""
        cause = error.orig
        code = cause.sqlstate if isinstance(cause, psycopg.Error) and cause.sqlstate else ""
        said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
        said = said or str(cause).partition("\n")[0]
        match code[:2], code:
            case "53", "53100":
                return StorageFull(f"no space is left for {self.name}", "free some, then send again")
            case "XX", _:
                return CorruptStore(f"{self.name} is not a sound database: {said}", RESTORE)
            case _, "55P03":
                return StoreError(
                    f"{self.name} is locked for over {BUSY_SECONDS:g} s", "stop the other process that writes to it"
                )
        if error.connection_invalidated or not code or code[:2] in ("08", "28", "3D", "53", "57"):
            return StoreError(f"{self.name} cannot be reached: {said}", "see that it runs and lets this user in")
        return StoreError(f"{self.name}: {said}", "look at the database's log")


def _configure(connection: psycopg.Connection[object], record: object) -> None:
    del record
    connection.autocommit = True
    connection.execute(SESSION).close()
    connection.autocommit = False


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes must not have another write in between: lock at the start.
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING}, hashtext(current_schema()))")
