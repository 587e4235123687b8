"""What a SQL store reads and writes, each a function of a connection in a transaction that its caller commits."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from shoal.core.receipt import Receipt
from shoal.store import tables
from shoal.store.failpoints import reached
from shoal.store.rules import check_snapshot
from shoal.store.store import Stored


def _head(connection: Connection, stream: str) -> tuple[int, int]:
    """Return the position and the epoch of a stream, and keep other writers off it."""
    streams = tables.streams
    query = select(streams.c.position, streams.c.epoch).where(streams.c.name == stream).with_for_update()
    found = connection.execute(query).one_or_none()
    if found is None:
        connection.execute(insert(streams).values(name=stream, epoch=0, position=0))
        return 0, 0
    return found.position, found.epoch


def lead(connection: Connection, stream: str) -> int:
    """Raise the epoch of a stream and return it."""
    _, epoch = _head(connection, stream)
    connection.execute(update(tables.streams).where(tables.streams.c.name == stream).values(epoch=epoch + 1))
    return epoch + 1


def lead_every(connection: Connection) -> dict[str, int]:
    """Raise the epochs of all streams that have events; return them in the order of the first events."""
    table = tables.streams
    connection.execute(update(table).where(table.c.rank.is_not(None)).values(epoch=table.c.epoch + 1))
    query = select(table.c.name, table.c.epoch).where(table.c.rank.is_not(None)).order_by(table.c.rank)
    return {row.name: row.epoch for row in connection.execute(query)}


def epoch(connection: Connection, stream: str) -> int:
    """Return the epoch of a stream, 0 for one that nobody led."""
    streams = tables.streams
    return connection.execute(select(streams.c.epoch).where(streams.c.name == stream)).scalar_one_or_none() or 0


def page(connection: Connection, stream: str, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Return at most `limit` (position, bytes) of the events after a position."""
    events = tables.events
    here = (events.c.stream == stream) & (events.c.position > after)
    query = select(events.c.position, events.c.data).where(here).order_by(events.c.position).limit(limit)
    return [(row.position, row.data) for row in connection.execute(query)]


def streams(connection: Connection) -> list[str]:
    """Return the streams that have events, in the order of their first ones."""
    table = tables.streams
    query = select(table.c.name).where(table.c.rank.is_not(None)).order_by(table.c.rank)
    return list(connection.execute(query).scalars())


def snapshot(connection: Connection, stream: str) -> tuple[int, bytes] | None:
    """Return the newest snapshot and the position it stands for."""
    table = tables.snapshots
    found = connection.execute(select(table.c.position, table.c.data).where(table.c.stream == stream)).one_or_none()
    return None if found is None else (found.position, found.data)


def save_snapshot(connection: Connection, stream: str, position: int, data: bytes) -> None:
    """Keep a snapshot, unless a newer one is there."""
    end, _ = _head(connection, stream)
    check_snapshot(stream, position, end)
    kept = snapshot(connection, stream)
    if kept is not None and kept[0] > position:
        return
    connection.execute(delete(tables.snapshots).where(tables.snapshots.c.stream == stream))
    reached("mid_snapshot")
    connection.execute(insert(tables.snapshots).values(stream=stream, position=position, data=data))


def inline(connection: Connection, digest: str) -> bytes | None:
    """Return the bytes of a small update, or None."""
    return connection.execute(
        select(tables.inline.c.bytes).where(tables.inline.c.digest == digest)
    ).scalar_one_or_none()


def accepted(connection: Connection, stream: str, assignment: str, device: str) -> Receipt | None:
    """Return the receipt of an update of a device that a stream accepted, or None."""
    table = tables.accepted
    here = (table.c.stream == stream) & (table.c.assignment == assignment) & (table.c.device == device)
    found = connection.execute(select(table.c.digest, table.c.at).where(here)).one_or_none()
    return None if found is None else Receipt(assignment, found.digest, found.at)


def discard(connection: Connection, digests: Sequence[str]) -> None:
    """Forget the bytes of small updates."""
    # One statement a digest: a single one would hold as many parameters as a round has devices.
    for digest in digests:
        connection.execute(delete(tables.inline).where(tables.inline.c.digest == digest))


def inline_stored(connection: Connection) -> list[Stored]:
    """Return digest, size and time of every small update: when it was last accepted, 0 when it never was."""
    table, accepted = tables.inline, tables.accepted
    since = func.coalesce(
        select(func.max(accepted.c.at)).where(accepted.c.digest == table.c.digest).scalar_subquery(), 0.0
    )
    return [Stored(*row) for row in connection.execute(select(table.c.digest, func.length(table.c.bytes), since))]


def pin(connection: Connection, stream: str, number: int, pinned: bool) -> None:
    """Mark a version, or take the mark away."""
    table = tables.pins
    connection.execute(delete(table).where((table.c.stream == stream) & (table.c.number == number)))
    if pinned:
        connection.execute(insert(table).values(stream=stream, number=number))


def pins(connection: Connection) -> list[tuple[str, int]]:
    """Return every marked version."""
    table = tables.pins
    query = select(table.c.stream, table.c.number).order_by(table.c.stream, table.c.number)
    return [(row.stream, row.number) for row in connection.execute(query)]


def saw(connection: Connection, seen: Mapping[str, float]) -> None:
    """Keep when devices called last."""
    table = tables.devices
    if seen:
        query = update(table).where(table.c.name == bindparam("device")).values(seen=bindparam("at"))
        connection.execute(query, [{"device": name, "at": at} for name, at in seen.items()])


def seen(connection: Connection) -> dict[str, float]:
    """Return when devices called last."""
    table = tables.devices
    return {row.name: row.seen for row in connection.execute(select(table.c.name, table.c.seen)) if row.seen}


def secret(connection: Connection, name: str, value: bytes) -> bytes:
    """Keep bytes under a name where there are none yet; return what is kept."""
    table = tables.secrets
    kept = connection.execute(select(table.c.bytes).where(table.c.name == name)).scalar_one_or_none()
    if kept is None:
        connection.execute(insert(table).values(name=name, bytes=value))
    return value if kept is None else kept
