"""A store in a SQL database: one writer thread with group commit, statements that every database understands.

What reads at the head of a stream and then writes has the database to itself: `Database` opens a transaction that
writes so that one does at a time, in SQLite as in PostgreSQL.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from shoal.core.errors import ConfigurationError, StoreError
from shoal.core.receipt import Receipt
from shoal.rounds.events import Recorded
from shoal.store import identities, rows, schema
from shoal.store.appending import Append
from shoal.store.database import WRITES, Database
from shoal.store.events import decode, encode
from shoal.store.sqlite import SqliteDatabase
from shoal.store.store import DeviceRecord, Entry, Stored, TokenRecord
from shoal.store.writer import Guard, Watch, Writer, unguarded

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a caller waits for its write to be durable."""

WAYS = "give a path, sqlite:///PATH or postgresql://USER@HOST/DATABASE"

PAGE = 512
"""Events read in one transaction: a slow reader must not keep the log from being folded into the file."""


class SqlStore:
    """A Store in the SQLite file at a path, or in the database at a `sqlite:///` or `postgresql://` URL.

    `guard` is asked at the start of every transaction that writes, and raises when this process may write no longer.
    Raises CorruptStore when the database is not a sound one of ours, NewerDatabase or OlderDatabase when another
    version wrote it, ConfigurationError for a URL of another kind, StoreError when it cannot be reached.
    """

    def __init__(self, where: str | Path | Database, watch: Watch = lambda _: None, guard: Guard = unguarded) -> None:
        self.database = database(where) if isinstance(where, str | Path) else where
        self._engine = self.database.engine
        self._readers = 0
        self._reading = threading.Condition()
        try:
            with self._explained():
                self.database.check()
                with self._engine.execution_options(**WRITES).begin() as connection:
                    schema.ready(connection, self.database)
        except BaseException:
            self._engine.dispose()
            raise
        self._writer = Writer(self._engine.execution_options(**WRITES), self.database.explain, watch, guard)

    def lead(self, stream: str) -> int:
        """Take over a stream for writing and return the new epoch."""
        return self._write(lambda connection: rows.lead(connection, stream))

    def lead_every(self) -> dict[str, int]:
        """Take over every stream that has events; return the new epochs, in the order of `streams`."""
        return self._write(rows.lead_every)

    def submit(self, entry: Entry) -> Future[int]:
        """Append in the background, in groups; the result is the stream's new position, once durable."""
        return self._writer.append(Append(entry, [encode(record) for record in entry.events]))

    def append(self, stream: str, events: Sequence[Recorded], *, expect: int, epoch: int) -> int:
        """Append and wait until durable."""
        return _awaited(self.submit(Entry(stream, events, expect, epoch)))

    def events(self, stream: str, after: int = 0) -> Iterator[tuple[int, Recorded]]:
        """Yield (position, event) of everything after a position."""
        position = after
        while page := self._page(stream, position):
            for position, data in page:
                yield position, decode(data)

    def _page(self, stream: str, after: int) -> list[tuple[int, bytes]]:
        return self._read(lambda connection: rows.page(connection, stream, after, PAGE))

    def streams(self) -> list[str]:
        """Return the names of all streams, in the order of their first events."""
        return self._read(rows.streams)

    def snapshot(self, stream: str) -> tuple[int, bytes] | None:
        """Return the newest snapshot and the position it stands for."""
        return self._read(lambda connection: rows.snapshot(connection, stream))

    def save_snapshot(self, stream: str, position: int, data: bytes) -> None:
        """Keep a snapshot, unless a newer one is there."""
        self._write(lambda connection: rows.save_snapshot(connection, stream, position, data))

    def inline(self, digest: str) -> bytes | None:
        """Return the bytes of a small update, or None."""
        return self._read(lambda connection: rows.inline(connection, digest))

    def accepted(self, stream: str, assignment: str, device: str) -> Receipt | None:
        """Return the receipt of an update that a stream accepted, or None."""
        return self._read(lambda connection: rows.accepted(connection, stream, assignment, device))

    def discard(self, digests: Sequence[str]) -> None:
        """Forget the bytes of small updates; unknown digests are ignored."""
        self._write(lambda connection: rows.discard(connection, digests))

    def inline_stored(self) -> list[Stored]:
        """Return what there is of small updates, without their bytes."""
        return self._read(rows.inline_stored)

    def pin(self, stream: str, number: int, pinned: bool = True) -> None:
        """Mark a version as one that is kept, or take the mark away."""
        self._write(lambda connection: rows.pin(connection, stream, number, pinned))

    def pins(self) -> list[tuple[str, int]]:
        """Return every version that is marked, as (stream, number)."""
        return self._read(rows.pins)

    def saw(self, seen: Mapping[str, float]) -> None:
        """Keep when devices (by name) called last."""
        self._write(lambda connection: rows.saw(connection, seen))

    def seen(self) -> dict[str, float]:
        """Return when devices (by name) called last."""
        return self._read(rows.seen)

    def enrol(self, device: DeviceRecord, token: str | None) -> DeviceRecord:
        """Keep a device and count a use of a token, in one transaction. Raises Conflict, Unauthorised."""
        return self._write(lambda connection: identities.enrol(connection, device, token))

    def devices(self) -> list[DeviceRecord]:
        """Return every device, oldest first."""
        return self._read(identities.devices)

    def revoke_device(self, device: str, at: float) -> None:
        """Mark a device (by id) as revoked. Raises NotFound."""
        self._write(lambda connection: identities.revoke_device(connection, device, at))

    def refuse(self, device: DeviceRecord) -> None:
        """Note that a device was turned away."""
        self._write(lambda connection: identities.refuse(connection, device))

    def refused(self) -> list[DeviceRecord]:
        """Return every device that was turned away, oldest first."""
        return self._read(identities.refused)

    def add_token(self, token: TokenRecord) -> None:
        """Keep a token's hash. Raises Conflict when it is kept already, for something else."""
        self._write(lambda connection: identities.add_token(connection, token))

    def revoke_token(self, token: str, at: float) -> None:
        """Mark a token (by hash) as revoked. Raises NotFound."""
        self._write(lambda connection: identities.revoke_token(connection, token, at))

    def tokens(self) -> list[TokenRecord]:
        """Return every token, oldest first."""
        return self._read(identities.tokens)

    def secret(self, name: str, value: bytes) -> bytes:
        """Keep bytes under a name where there are none yet; return what is kept."""
        return self._write(lambda connection: rows.secret(connection, name, value))

    def close(self) -> None:
        """Finish what was submitted and close. Raises StoreError when that takes longer than 30 seconds."""
        self._writer.close(PATIENCE)
        with self._reading:  # a connection that is in use now would stay open
            self._reading.wait_for(lambda: self._readers == 0, PATIENCE)
        self._engine.dispose()

    def _write(self, write: Callable[[Connection], T]) -> T:
        return _awaited(self._writer.submit(write))

    def _read(self, read: Callable[[Connection], T]) -> T:
        with self._counted(), self._explained(), self._engine.connect() as connection:
            return read(connection)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._reading:
            self._readers += 1
        try:
            yield
        finally:
            with self._reading:
                self._readers -= 1
                self._reading.notify_all()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self.database.explain(error) from error


@contextmanager
def transaction(where: str | Path | Database) -> Iterator[Connection]:
    """Write to a database in one transaction, whatever its revision; for what is done to it as a whole.

    Raises StoreError when it is locked or cannot be reached, CorruptStore when it is no database.
    """
    opened = database(where) if isinstance(where, str | Path) else where
    try:
        with opened.engine.execution_options(**WRITES).begin() as connection:
            yield connection
    except DBAPIError as error:
        raise opened.explain(error) from error
    finally:
        opened.engine.dispose()


def database(where: str | Path) -> Database:
    """Return the database at a path or a URL, not yet connected to. Raises ConfigurationError for another kind."""
    if isinstance(where, Path) or "://" not in where:
        return SqliteDatabase(Path(where))
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise ConfigurationError("the store's URL cannot be read", WAYS) from error
    match url.get_backend_name():
        case "sqlite" if url.database not in (None, "", ":memory:"):
            return SqliteDatabase(Path(str(url.database)))
        case "postgresql":
            return _postgres(url)
        case _:
            shown = url.render_as_string(hide_password=True)
            raise ConfigurationError(f"no store can be kept at {shown}", WAYS)


def _postgres(url: URL) -> Database:
    try:
        from shoal.store.postgres import PostgresDatabase
    except ModuleNotFoundError as error:
        raise ConfigurationError("PostgreSQL needs a driver", "pip install 'shoal[postgres]'") from error
    return PostgresDatabase(url)


def _awaited(future: Future[T]) -> T:
    try:
        return future.result(PATIENCE)
    except TimeoutError as error:
        future.cancel()
        raise StoreError(f"a write was not durable within {PATIENCE:g} s", "look at the disk's health") from error
