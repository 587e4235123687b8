"""Trees of arrays, and their canonical bytes.

A tree maps names to numpy arrays. Its canonical form is a safetensors file (https://github.com/huggingface/safetensors)
with names sorted, no metadata and the header padded with spaces to a multiple of eight, so that equal trees have equal
bytes and one SHA-256 digest. The library's own writer sorts by dtype first and may change its padding, which would
change digests; that is why the few lines that fix the bytes stand here.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.core.errors import UnsupportedArray

Array: TypeAlias = npt.NDArray[Any]
Tree: TypeAlias = Mapping[str, Array]
"""Model parameters, or a change to them, by name."""

Layout: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""The dtype and the shape of each array of a tree."""


class Layered(Mapping[str, Array]):
    """Trees laid over one another, the first that has a name winning. Nothing is read before it is asked for."""

    def __init__(self, *trees: Tree) -> None:
        self._trees = trees
        self._names = {name: None for tree in trees for name in tree}

    def __getitem__(self, name: str) -> Array:
        for tree in self._trees:
            if name in tree:
                return tree[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


DTYPES: Mapping[str, str] = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""numpy dtypes that may travel, with their names in the file format."""

WRITE_BYTES = 1 << 20
"""Size of the pieces in which `pieces` hands out large arrays."""


def header(layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the canonical header for arrays given as name -> (numpy dtype, shape), length prefix included.

    Raises UnsupportedArray for a dtype that cannot travel, and for the one name that the format keeps for itself.
    """
    return _header(tuple(sorted(layout.items())))


@functools.lru_cache(maxsize=64)
def _header(layout: tuple[tuple[str, tuple[str, tuple[int, ...]]], ...]) -> bytes:
    # a task makes version after version of one layout
    entries: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in layout:
        if dtype not in DTYPES:
            raise UnsupportedArray(f"array {name!r} of dtype {dtype}", f"use one of {', '.join(DTYPES)}")
        if name == "__metadata__":
            raise UnsupportedArray(f"an array named {name!r}", "rename it: safetensors keeps this name for itself")
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        entries[name] = {
            "dtype": DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def layout(tree: Tree) -> Layout:
    """Return name -> (dtype, shape) of a tree."""
    return {name: (array.dtype.name, array.shape) for name, array in tree.items()}


def pieces(tree: Tree) -> Iterator[bytes | memoryview]:
    """Yield the canonical bytes of a tree, large arrays in pieces, without a copy of the whole."""
    yield header(layout(tree))
    for name in sorted(tree):
        array = np.ascontiguousarray(tree[name])
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        flat = array.reshape(-1).data.cast("B") if array.size else memoryview(b"")
        for start in range(0, len(flat), WRITE_BYTES):
            yield flat[start : start + WRITE_BYTES]


def encode(tree: Tree) -> bytes:
    """Return the canonical bytes of a tree."""
    return b"".join(pieces(tree))


def digest(tree: Tree) -> str:
    """Return the SHA-256 of the canonical bytes of a tree, in hexadecimal."""
    return digest_and_size(tree)[0]


def digest_and_size(tree: Tree) -> tuple[str, int]:
    """Return the digest of a tree and the number of its canonical bytes, without making them all at once."""
    hashed, size = hashlib.sha256(), 0
    for piece in pieces(tree):
        hashed.update(piece)
        size += len(piece)
    return hashed.hexdigest(), size
