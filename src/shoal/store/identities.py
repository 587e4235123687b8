"""Devices and tokens in a SQL store, each a function of a connection in a transaction that its caller commits."""

from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from shoal.store import tables
from shoal.store.rules import device_conflict, no_device, no_token, same_device, token_conflict, unusable
from shoal.store.store import DeviceRecord, TokenRecord

DEVICE = tuple(column for column in tables.devices.c if column.name not in ("number", "seen"))
TOKEN = tuple(column for column in tables.tokens.c if column.name != "number")


def enrol(connection: Connection, device: DeviceRecord, token: str | None) -> DeviceRecord:
    """Keep a device and count a use of a token; a known device is returned as it is."""
    table = tables.devices
    known = connection.execute(select(*DEVICE).where(table.c.name == device.name)).one_or_none()
    if known is not None:
        return same_device(_device(known), device)
    if token is not None:
        _count(connection, token, device.enrolled)
    try:
        connection.execute(insert(table).values(_values(device)))
    except IntegrityError as error:
        raise device_conflict(device) from error
    connection.execute(delete(tables.refused).where(tables.refused.c.id == device.id))
    return device


def refuse(connection: Connection, device: DeviceRecord) -> None:
    """Note that a device was turned away, once."""
    table = tables.refused
    connection.execute(delete(table).where(table.c.id == device.id))
    row = {"id": device.id, "name": device.name, "public_key": device.public_key, "key_type": device.key_type}
    connection.execute(insert(table).values(**row, at=device.enrolled))


def refused(connection: Connection) -> list[DeviceRecord]:
    """Return every device that was turned away, oldest first."""
    rows = connection.execute(select(tables.refused).order_by(tables.refused.c.at, tables.refused.c.id))
    return [DeviceRecord(row.id, row.name, row.public_key, row.at, None, row.key_type) for row in rows]


def _count(connection: Connection, token: str, now: float) -> None:
    # one statement that looks and counts, so that of two at once the second one sees the first
    table = tables.tokens
    query = (
        update(table)
        .where(table.c.hash == token, table.c.revoked.is_(None))
        .where(or_(table.c.expires.is_(None), table.c.expires > now))
        .where(or_(table.c.uses.is_(None), table.c.used < table.c.uses))
        .values(used=table.c.used + 1)
    )
    if connection.execute(query).rowcount == 0:
        refusal = unusable(_find(connection, token), now)
        assert refusal is not None
        raise refusal


def devices(connection: Connection) -> list[DeviceRecord]:
    """Return every device, oldest first."""
    return [_device(row) for row in connection.execute(select(*DEVICE).order_by(tables.devices.c.number))]


def revoke_device(connection: Connection, device: str, at: float) -> None:
    """Mark a device as revoked."""
    table = tables.devices
    if connection.execute(update(table).where(table.c.id == device).values(revoked=at)).rowcount == 0:
        raise no_device(device)


def add_token(connection: Connection, token: TokenRecord) -> None:
    """Keep a token, once."""
    known = _find(connection, token.hash)
    if known is None:
        connection.execute(insert(tables.tokens).values(_values(token)))
    elif known != token:
        raise token_conflict(token)


def _find(connection: Connection, token: str) -> TokenRecord | None:
    found = connection.execute(select(*TOKEN).where(tables.tokens.c.hash == token)).one_or_none()
    return None if found is None else _token(found)


def revoke_token(connection: Connection, token: str, at: float) -> None:
    """Mark a token as revoked."""
    table = tables.tokens
    if connection.execute(update(table).where(table.c.hash == token).values(revoked=at)).rowcount == 0:
        raise no_token(token)


def tokens(connection: Connection) -> list[TokenRecord]:
    """Return every token, oldest first."""
    return [_token(row) for row in connection.execute(select(*TOKEN).order_by(tables.tokens.c.number))]


def _values(record: DeviceRecord | TokenRecord) -> dict[str, Any]:
    return asdict(record) | {"scope": msgspec.json.encode(record.scope).decode()}


def _device(row: Row[Any]) -> DeviceRecord:
    return DeviceRecord(**{**row._mapping, "scope": _scope(row)})


def _token(row: Row[Any]) -> TokenRecord:
    return TokenRecord(**{**row._mapping, "scope": _scope(row)})


def _scope(row: Row[Any]) -> tuple[str, ...]:
    return msgspec.json.decode(row.scope, type=tuple[str, ...])
