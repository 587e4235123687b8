"""Reading an operator's arguments at the worker: numbers, lists, handles and torch's own small types."""

from typing import Any

import torch
from msgspec.msgpack import Ext

from shoal.core.errors import BadRequest
from shoal.remote import frames
from shoal.remote.objects import Held, Objects
from shoal.remote.operators import Operator

_PLAIN = (int, float, bool, str, type(None))


class Reader:
    """Reads the arguments of one operator after the other, and keeps in `held` what tensors they name."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.held: list[Held] = []

    def call(self, operator: Operator, step: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments of a step. Raises BadRequest for tensors in the place of numbers."""
        check_places(operator, step)
        self.held = []
        args = [self.value(each) for each in step[2]]
        return args, {name: self.value(each) for name, each in step[3].items()} if len(step) > 3 else {}

    def value(self, given: Any) -> Any:
        """Return what one argument stands for. Raises BadRequest, or Poisoned for the result of a failure."""
        if isinstance(given, Ext):
            if given.code == frames.REF:
                held = self._objects.find(ident_of(given))
                self.held.append(held)
                return held.tensor
            return constant(given)
        if isinstance(given, list):
            return [self.value(each) for each in given]
        if isinstance(given, _PLAIN):
            return given
        raise BadRequest(f"an argument of type {type(given).__name__}", "use numbers, text, lists and handles")


def check_places(operator: Operator, step: list[Any]) -> None:
    """Raise BadRequest where a tensor stands for a number or a size: its value would show in a shape."""
    given = step[2]
    misplaced = any(at < len(given) and _has_handle(given[at]) for at in operator.plain)
    if len(step) > 3:
        misplaced |= any(name not in operator.tensors and _has_handle(each) for name, each in step[3].items())
    if misplaced:
        raise BadRequest(f"a tensor in the place of a number of {operator.name}", "give the number itself")


def _has_handle(given: Any) -> bool:
    if isinstance(given, list):
        return any(_has_handle(each) for each in given)
    return isinstance(given, Ext) and given.code == frames.REF


def ident_of(given: Ext) -> int:
    """Return the number of a handle."""
    return int.from_bytes(given.data, "little")


def constant(given: Ext) -> Any:
    """Return what a small type of torch stands for. Raises BadRequest for none of them."""
    try:
        match given.code:
            case frames.DTYPE:
                return frames.DTYPES[bytes(given.data).decode("ascii")]
            case frames.FORMAT:
                return frames.FORMATS[bytes(given.data).decode("ascii")]
            case frames.DEVICE:
                return torch.device("cpu")
            case frames.LAYOUT:
                return torch.strided
            case frames.SCALAR:
                name, _, raw = bytes(given.data).partition(b":")
                return torch.frombuffer(bytearray(raw), dtype=frames.DTYPES[str(name, "ascii")])[0]
    except (KeyError, ValueError) as error:
        raise BadRequest(
            "an argument of a type that no operator takes", "use the same version on both sides"
        ) from error
    raise BadRequest(f"an argument of type {given.code}", "use the same version on both sides")


def tensor(dtype: str, shape: list[int], data: bytes | bytearray) -> torch.Tensor:
    """Return a tensor of its own memory. Raises BadRequest where bytes and shape do not agree."""
    if len(data) != expected(dtype, shape):
        raise BadRequest(f"{len(data)} bytes for a tensor {dtype}{shape}", "send what the shape asks for")
    if not data:
        return torch.empty(shape, dtype=frames.DTYPES[dtype])
    return torch.frombuffer(bytearray(data), dtype=frames.DTYPES[dtype]).reshape(shape)


def expected(dtype: str, shape: list[int]) -> int:
    """Return the bytes of a tensor. Raises BadRequest for an unknown dtype or no shape."""
    if dtype not in frames.DTYPES or not all(isinstance(size, int) and 0 <= size < 1 << 40 for size in shape):
        raise BadRequest(f"a tensor {dtype[:20]!r} of shape {shape[:8]}", "use a dtype and a shape that torch knows")
    count = frames.DTYPES[dtype].itemsize
    for size in shape:
        count *= size
    return count
