"""Reading arrays from untrusted bytes, and the frame of a report.

A tree travels as a safetensors file. Reading one trusts nothing: the header's length is capped before it is read,
names must be unique, and the data must be exactly covered by arrays without holes or overlap. A report is a frame:
    length of head (4 bytes, little endian) | head (JSON, ReportHead) | arrays (safetensors)
The trees of an update share one file; names are "<tree>/<array>".
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.core.errors import BadRequest, TooLarge
from shoal.core.task import ArraySpec
from shoal.core.tree import DTYPES, Array, Tree
from shoal.core.tree import encode as encode_tree
from shoal.wire.messages import ReportHead, decode, encode

MAX_HEADER = 4 << 20
"""Largest header of a safetensors file in bytes."""

MAX_HEAD = 64 << 10
"""Largest head of a report in bytes."""

NUMPY_NAMES = {theirs: ours for ours, theirs in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one array lies in a file: numpy dtype name, shape, and the absolute byte range."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def header_length(prefix: bytes) -> int:
    """Return the length of the JSON header from a file's first 8 bytes. Raises TooLarge beyond the cap."""
    if len(prefix) < 8:
        raise BadRequest(f"a file of {len(prefix)} bytes", "send a safetensors file")
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER:
        raise TooLarge(f"a safetensors header of {length} bytes", f"the cap is {MAX_HEADER}")
    return length


def read_places(text: bytes, size: int) -> dict[str, Place]:
    """Read a header's JSON for a file of `size` bytes. Raises BadRequest, naming the array that is wrong."""
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"a safetensors header that is no JSON ({error})", "send a safetensors file") from error
    if not isinstance(entries, dict):
        raise BadRequest("a safetensors header that is no object", "send a safetensors file")
    base = 8 + len(text)
    places = {name: _place(name, entry, base) for name, entry in entries.items() if name != "__metadata__"}
    end = base
    for name, place in sorted(places.items(), key=lambda item: item[1].start):
        if place.start != end:
            raise BadRequest(f"array {name!r} begins at byte {place.start}", f"the one before it ends at {end}")
        end = place.stop
    if end != size:
        raise BadRequest(f"a safetensors file of {size} bytes", f"its header describes {end}")
    return places


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise BadRequest(f"the name {name!r} stands twice in a safetensors header", "send every array once")
        result[name] = value
    return result


def _place(name: str, entry: Any, base: int) -> Place:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)], **rest} if not rest:
            pass
        case _:
            raise BadRequest(f"array {name!r} is described by {str(entry)[:200]}", "give dtype, shape, data_offsets")
    if dtype not in NUMPY_NAMES:
        raise BadRequest(f"array {name!r} has dtype {dtype[:20]!r}", f"use one of {', '.join(NUMPY_NAMES)}")
    if not all(isinstance(side, int) and 0 <= side < 1 << 40 for side in shape):
        raise BadRequest(f"array {name!r} has shape {shape}", "give sizes that are not negative")
    expected = math.prod(shape) * np.dtype(NUMPY_NAMES[dtype]).itemsize
    if start < 0 or stop - start != expected:
        raise BadRequest(f"array {name!r} lies at bytes {start} to {stop}", f"its shape needs {expected} bytes")
    return Place(NUMPY_NAMES[dtype], tuple(shape), base + start, base + stop)


def decode_tree(data: bytes) -> dict[str, Array]:
    """Return the arrays of a safetensors file as read-only views of its bytes."""
    length = header_length(data[:8])
    places = read_places(data[8 : 8 + length], len(data))
    return {
        name: np.frombuffer(data, place.dtype, math.prod(place.shape), place.start).reshape(place.shape)
        for name, place in places.items()
    }


def join_trees(trees: Mapping[str, Tree]) -> Tree:
    """Return one tree whose names are "<tree>/<array>"."""
    return {f"{tree}/{name}": array for tree, arrays in trees.items() for name, array in arrays.items()}


def join_specs(trees: Mapping[str, Mapping[str, ArraySpec]]) -> dict[str, ArraySpec]:
    """Return the specs of one joined tree, under the names that `join_trees` gives."""
    return {f"{tree}/{name}": spec for tree, arrays in trees.items() for name, spec in arrays.items()}


def split_trees(joined: Tree) -> dict[str, dict[str, Array]]:
    """Undo `join_trees`."""
    trees: dict[str, dict[str, Array]] = {}
    for name, array in joined.items():
        tree, _, rest = name.partition("/")
        trees.setdefault(tree, {})[rest] = array
    return trees


def encode_trees(trees: Mapping[str, Tree]) -> bytes:
    """Return the canonical bytes of an update's trees."""
    return encode_tree(join_trees(trees))


def frame(head: ReportHead, arrays: bytes) -> bytes:
    """Return a report's body."""
    text = encode(head)
    return len(text).to_bytes(4, "little") + text + arrays


def head_length(prefix: bytes) -> int:
    """Return the length of a report's head from its first 4 bytes. Raises TooLarge beyond the cap."""
    length = int.from_bytes(prefix[:4], "little")
    if length > MAX_HEAD:
        raise TooLarge(f"a report's head of {length} bytes", f"the cap is {MAX_HEAD}")
    return length


def read_head(text: bytes) -> ReportHead:
    """Read a report's head."""
    return decode(text, ReportHead)
