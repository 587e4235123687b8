"""Events and snapshots as bytes: JSON, each event tagged with the name of its class.

Python's own JSON writer is used because it keeps what a strict one turns into null: a metric that came out as NaN and
a deadline that is infinite must read back as they were. msgspec checks every field on the way in.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import msgspec

from shoal.core.errors import CorruptStore, ShoalError
from shoal.rounds.events import Event, Recorded
from shoal.rounds.state import TaskState

T = TypeVar("T")

KINDS: Mapping[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
RESTORE = "restore the home from a backup"


def encode(record: Recorded) -> bytes:
    """Return an event with its time as bytes."""
    return _dump({"at": record.at, "kind": type(record.event).__name__, "event": record.event})


def decode(data: bytes) -> Recorded:
    """Read an event with its time. Raises CorruptStore when the bytes are none."""
    match _load(data, "event"):
        case {"at": float() | int() as at, "kind": str() as kind, "event": dict() as fields} if kind in KINDS:
            return Recorded(float(at), _convert(fields, KINDS[kind]))
        case {"kind": kind}:
            raise CorruptStore(f"a stored event of kind {kind!r} is not complete, or not known", RESTORE)
        case _:
            raise CorruptStore(f"stored bytes are no event: {data[:40]!r}", RESTORE)


def encode_state(state: TaskState) -> bytes:
    """Return a snapshot of a task as bytes."""
    return _dump(state)


def decode_state(data: bytes) -> TaskState:
    """Read a snapshot of a task. Raises CorruptStore when the bytes are none."""
    return _convert(_load(data, "snapshot"), TaskState)


def _dump(value: Any) -> bytes:
    return json.dumps(msgspec.to_builtins(value, enc_hook=_plain), separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    # What an annotation lets in and msgspec does not know: numpy.float64 is a float, any Mapping may stand for a dict.
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def _load(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptStore(f"stored bytes are no {what}: {error}", RESTORE) from error


def _convert(value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, ShoalError) as error:
        raise CorruptStore(f"a stored {kind.__name__} does not fit: {error}", RESTORE) from error
