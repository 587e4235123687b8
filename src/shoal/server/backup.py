"""Copying a home while it is served, making one from a copy, and bringing an old one up to date.

Blobs never change once they are there, so that linking one is as good as copying it. The database is copied first, by
SQLite's own means and in one piece; then every blob that it refers to. What a round's end removed in between makes
the copy start again, from a database that no longer needs it.
"""

import errno
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import msgspec
from sqlalchemy import Connection

from shoal.core.errors import ConfigurationError, CorruptStore
from shoal.core.types import ModelVersion
from shoal.rounds.replay import replay
from shoal.rounds.state import TaskState
from shoal.server.home import BLOBS, DATABASE, alone
from shoal.server.leading import leading
from shoal.server.retention import updates, used
from shoal.store import rows, schema
from shoal.store.blobs import DIGEST
from shoal.store.durable import sync_folder, write_durably
from shoal.store.events import decode
from shoal.store.sql import database, transaction
from shoal.store.store import Namespace

MANIFEST = "backup.json"
FORMAT = 1
TRIES = 20
"""How often a copy starts again because a round's end removed what it was about to link."""

PAGE = 1000
NAMESPACES: tuple[Namespace, ...] = ("published", "updates")
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)
"""How a disk says that it cannot link these."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob of a backup."""

    digest: str
    namespace: Namespace
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. `removed` are blobs of old versions that the home no longer had; times are since 1970."""

    format: int
    shoal: str
    made: float
    revision: str
    tasks: int
    database: str
    database_size: int
    blobs: tuple[Blob, ...]
    removed: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of everything together."""
        return self.database_size + sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class _References:
    revision: str
    tasks: int
    needed: frozenset[str]
    old: frozenset[str]


def back_up(home: Path, to: Path, *, copy: bool = False, now: float | None = None) -> Manifest:
    """Copy a home to a new folder, whether or not it is served; with `copy` nothing is linked.

    Raises ConfigurationError when there is no home or `to` exists, CorruptStore when the home lacks what it needs.
    """
    if not (home / DATABASE).is_file():
        raise ConfigurationError(
            f"{home} is not the home of a coordinator, or its database is elsewhere",
            "give the folder that it keeps; PostgreSQL is backed up by its own means",
        )
    if to.exists():
        raise ConfigurationError(f"{to} exists already", "name a folder that does not")
    partial = to.with_name(to.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    references = _copy_consistently(home, partial, copy)
    blobs = tuple(_blobs(partial / BLOBS, references))
    there = {blob.digest for blob in blobs}
    database = partial / DATABASE
    manifest = Manifest(
        format=FORMAT,
        shoal=version("shoal"),
        made=time.time() if now is None else now,
        revision=references.revision,
        tasks=references.tasks,
        database=_digest(database),
        database_size=database.stat().st_size,
        blobs=blobs,
        removed=tuple(sorted(references.old - there)),
    )
    write_durably(partial / MANIFEST, [msgspec.json.format(msgspec.json.encode(manifest), indent=1)], 0o600)
    partial.rename(to)
    sync_folder(to.parent)
    return manifest


def restore(backup: Path, home: Path) -> Manifest:
    """Make a home from a backup, once every byte has the digest that the backup's manifest names.

    Raises ConfigurationError when the home is not empty or there is no backup, CorruptStore when it was damaged.
    """
    manifest = _manifest(backup)
    if home.exists() and any(home.iterdir()):
        raise ConfigurationError(f"{home} is not empty", "restore to a new folder")
    with alone(home):
        for blob in manifest.blobs:
            part = Path(blob.namespace, blob.digest[:2], blob.digest)
            _copy_verified(backup / BLOBS / part, home / BLOBS / part, blob.digest)
        # the database last: without it nothing here is taken for a home
        _copy_verified(backup / DATABASE, home / DATABASE, manifest.database)
    return manifest


def migrate(home: Path, where: str | None = None) -> tuple[str, str]:
    """Bring a coordinator's database to the revision of this Shoal; return the one it was at and the one it is at.

    It lies in the home, or is the PostgreSQL database at the URL `where`. Raises ConfigurationError when there is no
    home or a coordinator runs on it, CorruptStore.
    """
    from shoal.store.migrations import migrate as upgrade

    if where is None and not (home / DATABASE).is_file():
        raise ConfigurationError(f"{home} is not the home of a coordinator", "give the folder that it keeps")
    place = database(home / DATABASE if where is None else where)
    with alone(home), leading(place), transaction(place) as connection:
        return upgrade(connection)


def _copy_consistently(home: Path, to: Path, copy: bool) -> _References:
    for _ in range(TRIES):
        _copy_database(home / DATABASE, to / DATABASE)
        references = _references(to / DATABASE)
        missing = [d for d in references.needed | references.old if not _bring(home / BLOBS, to / BLOBS, d, copy)]
        if not references.needed.intersection(missing):
            return references
    lost = sorted(references.needed.intersection(missing))
    raise CorruptStore(f"{home} lacks {len(lost)} blobs that it needs, such as {lost[0]}", "restore an older backup")


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
    with closing(reading), closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE").close()
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _references(database: Path) -> _References:
    """Return what the tasks in a database refer to: what they need, and their older versions, which may be gone."""
    with transaction(database) as connection:
        revision = schema.revision(connection)
        states = [_state(connection, stream) for stream in rows.streams(connection)]
        inline = {stored.digest for stored in rows.inline_stored(connection)}
    needed = frozenset(digest for state in states for digest in _needed(state)) - inline - {""}
    old = frozenset(digest for state in states for found in state.versions for digest in _of(found)) - needed
    return _References(revision, len(states), needed, old)


def _needed(state: TaskState) -> Iterator[str]:
    yield from _of(state.latest)
    yield from used(state)
    yield from updates(state)


def _of(found: ModelVersion) -> Iterator[str]:
    yield found.digest
    if found.checkpoint:
        yield found.checkpoint


def _state(connection: Connection, stream: str) -> TaskState:
    return replay(decode(data) for data in _events(connection, stream))


def _events(connection: Connection, stream: str) -> Iterator[bytes]:
    position = 0
    while page := rows.page(connection, stream, position, PAGE):
        yield from (data for _, data in page)
        position = page[-1][0]


def _bring(home: Path, to: Path, digest: str, copy: bool) -> bool:
    """Link or copy a blob from wherever it lies; return whether it was there."""
    for namespace in NAMESPACES:
        part = Path(namespace, digest[:2], digest)
        target = to / part
        if target.exists():
            return True
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _link_or_copy(home / part, target, copy)
        except FileNotFoundError:
            continue
        return True
    return False


def _link_or_copy(source: Path, target: Path, copy: bool) -> None:
    if not copy:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            return
    _copy_verified(source, target, source.name)


def _copy_verified(source: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = hashlib.sha256()
    with source.open("rb") as reading:
        write_durably(target, _hashing(reading, found), 0o600)
    if found.hexdigest() != digest:
        target.unlink()
        raise CorruptStore(f"{source} has the SHA-256 {found.hexdigest()}, not {digest}", "use an older backup")


def _hashing(reading: BinaryIO, found: "hashlib._Hash") -> Iterator[bytes]:
    while piece := reading.read(1 << 20):
        found.update(piece)
        yield piece


def _blobs(folder: Path, references: _References) -> Iterator[Blob]:
    """Yield what was brought and is still referred to; what an earlier try brought in vain goes."""
    wanted = references.needed | references.old
    for namespace in NAMESPACES:
        for path in sorted(folder.glob(f"{namespace}/??/*")):
            if path.name in wanted:
                yield Blob(path.name, namespace, path.stat().st_size)
            else:
                path.unlink()


def _manifest(backup: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise ConfigurationError(
            f"{backup} holds no backup: {error.strerror}", "give a folder that `shoal server backup` made"
        ) from error
    except msgspec.DecodeError as error:
        raise CorruptStore(f"{backup / MANIFEST} cannot be read: {error}", "use an older backup") from error
    if manifest.format != FORMAT:
        raise ConfigurationError(
            f"{backup} is a backup of format {manifest.format}, this Shoal reads {FORMAT}",
            f"use Shoal {manifest.shoal}, which made it",
        )
    if not all(DIGEST.fullmatch(blob.digest) for blob in manifest.blobs):
        raise CorruptStore(f"{backup / MANIFEST} names blobs that have no digests", "use an older backup")
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
