"""Appending many entries in one transaction, with few statements however many entries there are.

The transaction has the streams to itself, so what it read about them at its start stays true: each entry is checked
in memory against that and against the entries before it, and everything that passes is written together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, insert, select, update

from shoal.core.errors import StreamConflict
from shoal.rounds.events import Committed, Reported
from shoal.store import tables
from shoal.store.rules import check_head, check_once, once
from shoal.store.store import Entry

PARAMETERS = 1000
"""Values in one `IN`; databases limit how many parameters a statement has."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Append:
    """An entry with its events as bytes."""

    entry: Entry
    encoded: Sequence[bytes]


@dataclass(slots=True)
class _Stream:
    position: int = 0
    epoch: int = 0
    kept: int = 0
    known: bool = False
    accepted: set[str] = field(default_factory=set[str])
    rounds: set[int] = field(default_factory=set[int])


def append_all(connection: Connection, appends: Sequence[Append]) -> list[int | StreamConflict]:
    """Append what can be appended, in order; return for each its stream's new position, or why it was refused."""
    entries = [append.entry for append in appends]
    streams = _read_streams(connection, entries)
    results: list[int | StreamConflict] = []
    taken: list[Append] = []
    for append in appends:
        try:
            results.append(_take(streams[append.entry.stream], append.entry))
            taken.append(append)
        except StreamConflict as conflict:
            results.append(conflict)
    _write(connection, taken)
    _write_heads(connection, {append.entry.stream: streams[append.entry.stream] for append in taken})
    return results


def _take(stream: _Stream, entry: Entry) -> int:
    check_head(entry, stream.position, stream.epoch)
    check_once(entry.stream, entry.events, stream.accepted, stream.rounds)
    accepted, rounds = once(entry.events)
    stream.accepted.update(accepted)
    stream.rounds.update(rounds)
    stream.position += len(entry.events)
    return stream.position


def _read_streams(connection: Connection, entries: Sequence[Entry]) -> dict[str, _Stream]:
    streams = {entry.stream: _Stream() for entry in entries}
    table = tables.streams
    for names in _cut(streams):
        heads = select(table.c.name, table.c.position, table.c.epoch).where(table.c.name.in_(names)).with_for_update()
        for name, position, epoch in connection.execute(heads):
            streams[name] = _Stream(position, epoch, position, True)
    assignments, rounds = once(record for entry in entries for record in entry.events)
    for stream, assignment in _present(connection, tables.accepted, "assignment", assignments):
        if stream in streams:
            streams[stream].accepted.add(assignment)
    for stream, number in _present(connection, tables.versions, "round", rounds):
        if stream in streams:
            streams[stream].rounds.add(number)
    return streams


def _present(connection: Connection, table: Table, column: str, values: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    for some in _cut(values):
        query = select(table.c.stream, table.c[column]).where(table.c[column].in_(some))
        yield from ((stream, value) for stream, value in connection.execute(query))


def _cut(values: Iterable[Any]) -> Iterable[list[Any]]:
    unique = list(dict.fromkeys(values))
    return (unique[start : start + PARAMETERS] for start in range(0, len(unique), PARAMETERS))


def _write(connection: Connection, appends: Sequence[Append]) -> None:
    records = [(append.entry.stream, record) for append in appends for record in append.entry.events]
    accepted = [_accepted(name, r.event, r.at) for name, r in records if isinstance(r.event, Reported)]
    committed = [{"stream": name} | asdict(r.event) for name, r in records if isinstance(r.event, Committed)]
    _insert(connection, tables.events, [row for append in appends for row in _events(append)])
    _insert(connection, tables.accepted, accepted)
    _insert(connection, tables.versions, committed)
    inline = {digest: data for append in appends for digest, data in append.entry.inline.items()}
    for some in _cut(inline):
        for digest in connection.execute(select(tables.inline.c.digest).where(tables.inline.c.digest.in_(some))):
            del inline[digest[0]]
    _insert(connection, tables.inline, [{"digest": digest, "bytes": data} for digest, data in inline.items()])


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _events(append: Append) -> list[Row]:
    entry = append.entry
    return [
        {"stream": entry.stream, "position": position, "at": record.at, "data": data}
        for position, (record, data) in enumerate(zip(entry.events, append.encoded, strict=True), entry.expect + 1)
    ]


def _accepted(stream: str, event: Reported, at: float) -> Row:
    return {
        "stream": stream,
        "assignment": event.assignment,
        "device": event.device,
        "digest": event.digest,
        "weight": event.weight,
        "at": at,
    }


def _write_heads(connection: Connection, streams: dict[str, _Stream]) -> None:
    table = tables.streams
    moved = {name: stream for name, stream in streams.items() if stream.position > stream.kept}
    ranks = _ranks(connection, [name for name, stream in moved.items() if stream.kept == 0])
    new = [{"name": name, "epoch": 0, "position": 0} for name, stream in moved.items() if not stream.known]
    _insert(connection, table, new)
    if moved:
        at = update(table).where(table.c.name == bindparam("key")).values(position=bindparam("end"))
        connection.execute(at, [{"key": name, "end": stream.position} for name, stream in moved.items()])
    if ranks:
        first = update(table).where(table.c.name == bindparam("key")).values(rank=bindparam("place"))
        connection.execute(first, [{"key": name, "place": rank} for name, rank in ranks.items()])


def _ranks(connection: Connection, begun: Sequence[str]) -> dict[str, int]:
    if not begun:
        return {}
    last: int | None = connection.execute(select(func.max(tables.streams.c.rank))).scalar_one()
    return {name: rank for rank, name in enumerate(begun, (last or 0) + 1)}
