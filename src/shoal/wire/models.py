"""Fetching models: bytes that are what their digest says, and arrays that are what the task says."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from shoal.core.errors import CorruptStore, TaskError
from shoal.core.task import ArraySpec
from shoal.core.tree import Array, header, layout
from shoal.wire.codec import decode_tree
from shoal.wire.http import Connection


def file_size(arrays: Mapping[str, ArraySpec]) -> int:
    """Return the number of bytes of the canonical file of these arrays."""
    data = sum(spec.size * np.dtype(spec.dtype).itemsize for spec in arrays.values())
    return len(header(_layout(arrays))) + data


def check_digest(digest: str, data: bytes) -> None:
    """Raise CorruptStore for bytes whose SHA-256 is another one."""
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise CorruptStore(
            f"blob {digest} arrived as {len(data)} bytes with SHA-256 {found}",
            "try again; if it stays, the coordinator's store is damaged",
        )


def fetch_bytes(connection: Connection, digest: str, most: int) -> bytes:
    """Download a blob of at most `most` bytes. Raises CorruptStore when it is not what its digest says."""
    data = connection.download(digest, most)
    check_digest(digest, data)
    return data


def fetch_tree(connection: Connection, digest: str, arrays: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """Download a tree of exactly these arrays. Raises CorruptStore, or TaskError naming the arrays that differ."""
    return read_tree(fetch_bytes(connection, digest, file_size(arrays)), arrays)


def read_tree(data: bytes, arrays: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """Return the arrays of a file that must be exactly these. Raises TaskError naming those that differ."""
    tree = decode_tree(data)
    differing = sorted(_differing(_layout(arrays), layout(tree)))
    if differing:
        raise TaskError(f"a model's arrays {differing} are not those of its task", "publish the task again")
    return tree


def _layout(arrays: Mapping[str, ArraySpec]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (spec.dtype, spec.shape) for name, spec in arrays.items()}


def _differing(expected: Mapping[str, object], given: Mapping[str, object]) -> Iterable[str]:
    return (name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
