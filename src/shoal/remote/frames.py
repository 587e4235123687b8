"""The messages of remote tensors: arrays of msgpack, read into these types or refused.

Every message of a client after its Hello has a number, by its place; `done` in an answer is how many of them the
worker has carried out. After a lost connection both sides go on from there, so nothing is done twice.
"""

from typing import Any, TypeAlias

import msgspec
import torch
from msgspec.msgpack import Ext

from shoal.core.errors import BadRequest

PROTOCOL = 1

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
    )
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

FORMATS = {
    "contiguous": torch.contiguous_format,
    "preserve": torch.preserve_format,
    "channels_last": torch.channels_last,
}

REF, DTYPE, FORMAT, DEVICE, LAYOUT, SCALAR = 1, 2, 3, 4, 5, 6
"""Codes of the extension types in the arguments of an operator."""

PUT, RUN, SEED = -1, -2, -3
"""What stands in place of an operator's number in a batch: a small tensor, a recorded program, a seed."""


class Hello(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """First message of a connection; with `session`, it goes on with that one."""

    protocol: int
    session: str = ""
    secret: str = ""
    waiting: tuple[int, ...] = ()
    """Requests whose answers did not arrive."""


class Batch(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """Operators in order, then handles that are gone; `names` are operators used for the first time."""

    names: list[str]
    steps: list[list[Any]]
    freed: list[int]


class Put(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """A large tensor; `size` bytes of it follow in Parts."""

    ident: int
    dtype: str
    shape: list[int]
    size: int


class Part(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """A piece of the tensor that was announced last."""

    data: bytes


class Get(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """Ask for a tensor's values; answers before `oldest` are not needed any more."""

    request: int
    oldest: int
    ident: int
    reason: str | None = None


class Ask(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """Ask something else, by name."""

    request: int
    oldest: int
    what: str
    arguments: dict[str, Any]


class Define(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """A recorded program: steps as in a batch, the handles that are its inputs, and those whose values stay."""

    program: int
    names: list[str]
    steps: list[list[Any]]
    inputs: list[int]
    outputs: list[int]
    kept: list[int]


class Leave(msgspec.Struct, array_like=True, tag=7, frozen=True):
    """The client goes; its tensors may be freed at once."""


Question: TypeAlias = Hello | Batch | Put | Part | Get | Ask | Define | Leave


class Welcome(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """The session begins or goes on, with `done` messages carried out."""

    session: str
    secret: str
    name: str
    done: int
    window: int
    window_bytes: int
    part: int
    frame: int


class Credit(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """How many messages are carried out."""

    done: int


class Value(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """The tensor that was asked for; `size` bytes follow in Parts unless they are here."""

    request: int
    done: int
    dtype: str
    shape: list[int]
    size: int
    data: bytes | None


class Answer(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """What a question gave."""

    request: int
    done: int
    value: Any


class Failed(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """Why a request failed; request 0 ends the session."""

    request: int
    done: int
    code: str
    problem: str
    fix: str
    kind: str = ""
    """Python's class of a kernel's error, such as IndexError."""
    trace: str = ""


Reply: TypeAlias = Welcome | Credit | Value | Part | Answer | Failed

_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(Question)
_replies = msgspec.msgpack.Decoder(Reply)

encode = _encoder.encode


def question(data: bytes) -> Question:
    """Read what a client says. Raises BadRequest for anything else."""
    read: Question = _read(_questions, data)
    return read


def reply(data: bytes) -> Reply:
    """Read what a worker says. Raises BadRequest for anything else."""
    read: Reply = _read(_replies, data)
    return read


def _read(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRequest("a message that is none of remote tensors", "use the same version on both sides") from error


def weight(step: list[Any]) -> int:
    """Return for how many operators a step counts against the credit, which both sides keep."""
    return len(step[2]) * 64 if step[0] == RUN else 1


def ref(ident: int) -> Ext:
    """Return a handle as it stands among arguments."""
    return Ext(REF, ident.to_bytes(4 if ident < 1 << 32 else 8, "little"))
