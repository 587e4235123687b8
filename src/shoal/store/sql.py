"""A store in SQLite: one file, write-ahead log, synchronous FULL, one writer thread with group commit.

Statements are SQLAlchemy Core without anything of SQLite's own, except where a connection is made; what reads at
the head of a stream locks its row, which SQLite does by letting in one writer at a time.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from shoal.core.errors import ConfigurationError, CorruptStore, StorageFull, StoreError
from shoal.core.receipt import Receipt
from shoal.rounds.events import Recorded
from shoal.store import identities, rows, schema
from shoal.store.appending import Append
from shoal.store.events import RESTORE, decode, encode
from shoal.store.store import DeviceRecord, Entry, Stored, TokenRecord
from shoal.store.writer import Watch, Writer

T = TypeVar("T")

BUSY_SECONDS = 10.0
"""How long a write waits for another process to finish its own."""

PATIENCE = 30.0
"""Seconds that a caller waits for its write to be durable."""

PAGE = 512
"""Events read in one transaction: a slow reader must not keep the log from being folded into the file."""


class SqlStore:
    """A Store in the SQLite file at a path, or at a `sqlite:///` URL.

    Raises CorruptStore when the file is not a sound database of ours, NewerDatabase or OlderDatabase when another
    version wrote it, ConfigurationError for a URL of another kind.
    """

    def __init__(self, where: str | Path, watch: Watch = lambda _: None) -> None:
        self.path = _path(where)
        self._engine = _engine(self.path)
        try:
            with self._explained():
                _create(self.path)
                _prepare(self._engine, self.path)
        except BaseException:
            self._engine.dispose()
            raise
        self._writer = Writer(self._engine.execution_options(writes=True), self._explain, watch)

    def lead(self, stream: str) -> int:
        """Take over a stream for writing and return the new epoch."""
        return self._write(lambda connection: rows.lead(connection, stream))

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

    def add_token(self, token: TokenRecord) -> None:
        """Keep a token's hash. Raises Conflict when it is kept already, for something else."""
        self._write(lambda connection: identities.add_token(connection, token))

    def revoke_token(self, token: str, at: float) -> None:
        """Mark a token (by hash) as revoked. Raises NotFound."""
        self._write(lambda connection: identities.revoke_token(connection, token, at))

    def tokens(self) -> list[TokenRecord]:
        """Return every token, oldest first."""
        return self._read(identities.tokens)

    def close(self) -> None:
        """Finish what was submitted and close. Raises StoreError when that takes longer than 30 seconds."""
        self._writer.close(PATIENCE)
        self._engine.dispose()

    def _write(self, write: Callable[[Connection], T]) -> T:
        return _awaited(self._writer.submit(write))

    def _read(self, read: Callable[[Connection], T]) -> T:
        with self._explained(), self._engine.connect() as connection:
            return read(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error) from error

    def _explain(self, error: DBAPIError) -> StoreError:
        return _explain(error, self.path)


@contextmanager
def transaction(path: Path) -> Iterator[Connection]:
    """Write to the database at a path in one transaction, whatever its revision; for what is done to it as a whole.

    Raises StoreError when it is locked, CorruptStore when it is no database.
    """
    engine = _engine(path)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            yield connection
    except DBAPIError as error:
        raise _explain(error, path) from error
    finally:
        engine.dispose()


def _awaited(future: Future[T]) -> T:
    try:
        return future.result(PATIENCE)
    except TimeoutError as error:
        future.cancel()
        raise StoreError(f"a write was not durable within {PATIENCE:g} s", "look at the disk's health") from error


def _path(where: str | Path) -> Path:
    if isinstance(where, Path) or "://" not in where:
        return Path(where)
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise ConfigurationError(f"the store's URL cannot be read: {error}", "give a path") from error
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        shown = url.render_as_string(hide_password=True)
        raise ConfigurationError(f"no store can be kept at {shown}", "give a path, or sqlite:///<path>")
    return Path(str(url.database))


def _create(path: Path) -> None:
    # SQLite would create it readable for all; its log and index files take the mode of the database.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _engine(path: Path) -> Engine:
    # Parameters hold what devices sent: they do not belong in the text of an error.
    # Readers are brief and as many as there are threads: none is to wait for another's connection.
    engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True, max_overflow=-1)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: sqlite3.Connection, record: object) -> None:
    del record
    connection.isolation_level = None  # the driver's own transactions know no savepoints: `_begin` opens ours
    for pragma in (
        f"busy_timeout = {int(BUSY_SECONDS * 1000)}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes fails when another has written in between: lock at the start.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        problem = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if problem != "ok":
        raise CorruptStore(f"{path} is damaged: {problem}", RESTORE)
    with engine.execution_options(writes=True).begin() as connection:
        schema.ready(connection, path)


def _explain(error: DBAPIError, path: Path) -> StoreError:
    match error.orig:
        case sqlite3.Error(sqlite_errorcode=int() as extended):
            code = extended & 0xFF  # the rest says more exactly what it was, such as SQLITE_IOERR_WRITE
        case _:
            code = sqlite3.SQLITE_ERROR
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"no space is left for {path}", "free some, then send again")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return CorruptStore(f"{path} is not a sound database: {error.orig}", RESTORE)
    if code == sqlite3.SQLITE_BUSY:
        return StoreError(f"{path} is locked for over {BUSY_SECONDS:g} s", "stop the other process that writes to it")
    return StoreError(f"{path}: {error.orig}", "look at its permissions and at the disk's health")
