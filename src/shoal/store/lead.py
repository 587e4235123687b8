"""One coordinator at a time on a PostgreSQL database: the others wait until it ends, and then one of them goes on.

Who leads holds an advisory lock, which is free the moment its connection is gone, and has a term, the epoch of a stream
of its own. Every transaction that writes compares the term, so that a coordinator that lost its connection, and does
not know yet that another one leads, writes nothing.
"""

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from shoal.core.errors import ConfigurationError, ShoalError, Superseded
from shoal.store import rows
from shoal.store.database import WRITES
from shoal.store.postgres import LEADING, PostgresDatabase

STREAM = "coordinator"
"""Its epoch is the term. Tasks' streams end in a number, so that none has this name."""

PATIENCE_SECONDS = 5.0
"""How long the connection of one that has just died may still hold the lock."""

STANDBY_SECONDS = 20.0
"""For how long a wait for the lock lasts before it is begun anew."""

BEAT_SECONDS = 2.0
"""How often the one that leads looks whether it still does."""

KEY = f"{LEADING}, hashtext(current_schema())"
HOLDER = f"""
    SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid::bigint = {LEADING}
      AND objid::bigint = hashtext(current_schema())::bigint & 4294967295 AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608  (a constant)

log = structlog.get_logger()


class Lead:
    """The lead of one database: taken once, watched from then on, given back by `close`."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._term: int | None = None
        self._connection: Connection | None = None
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def lock(self, *, standby: bool = False) -> None:
        """Keep every other coordinator off; with `standby`, once no other leads.

        Raises ConfigurationError, with the name of the one that leads, and StoreError.
        """
        try:
            self._connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not self._locked(self._connection, PATIENCE_SECONDS):
                self._wait(self._connection, standby)
        except DBAPIError as error:
            self._drop()
            raise self._database.explain(error) from error
        except BaseException:
            self._drop()
            raise

    def _wait(self, connection: Connection, standby: bool) -> None:
        holder = connection.exec_driver_sql(HOLDER).scalar() or "another coordinator"
        if not standby:
            raise ConfigurationError(
                f"{self._database.name} is led by {holder}", "stop that one, or let this one wait with --standby"
            )
        log.info("standing by", database=self._database.name, leader=holder)
        while not self._locked(connection, STANDBY_SECONDS):
            pass

    def _locked(self, connection: Connection, seconds: float) -> bool:
        connection.exec_driver_sql(f"SET lock_timeout = '{seconds:g}s'")
        try:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({KEY})")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":
                raise
            return False
        return True

    def begin(self) -> None:
        """Begin a new term; who led before writes nothing from now on. Raises StoreError."""
        try:
            with self._database.engine.execution_options(**WRITES).begin() as connection:
                self._term = rows.lead(connection, STREAM)
        except DBAPIError as error:
            raise self._database.explain(error) from error

    def guard(self, connection: Connection) -> None:
        """Raise Superseded in a transaction that writes, when the term is over."""
        if self._term is not None and rows.epoch(connection, STREAM) != self._term:
            raise self.over()

    def over(self) -> Superseded:
        """Return what is to be said when another one leads."""
        return Superseded(f"another coordinator leads {self._database.name} now", "start this one again with --standby")

    def watch(self, lost: Callable[[], None]) -> None:
        """Look every two seconds whether the lead is still here; call `lost`, from another thread, when it is not."""
        self._watcher = threading.Thread(target=self._watch, args=(lost,), name="shoal-lead", daemon=True)
        self._watcher.start()

    def _watch(self, lost: Callable[[], None]) -> None:
        while not self._over.wait(BEAT_SECONDS):
            if not self._held():
                lost()
                return

    def _held(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.exec_driver_sql("SELECT 1")
                return True
        except DBAPIError:
            self._drop()
        return self._retaken()

    def _retaken(self) -> bool:
        """Take the lock again after the connection broke; False when another one did, or led meanwhile."""
        try:
            self.lock()
            assert self._connection is not None
            self.guard(self._connection)
        except (ConfigurationError, Superseded):
            return False
        except (DBAPIError, ShoalError) as error:
            # a database that cannot be reached is led by nobody else, as far as anyone can know
            log.error("the database cannot be reached", problem=str(error))
        else:
            log.warning("took the lead again", database=self._database.name, term=self._term)
        return True

    def close(self) -> None:
        """Let another one lead."""
        self._over.set()
        if self._watcher is not None:
            self._watcher.join(PATIENCE_SECONDS)
        self._drop()

    def _drop(self) -> None:
        # a connection with settings of its own does not go back to those that wait to be used
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
