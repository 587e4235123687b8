"""Fetching models: bytes that are what their digest says, and arrays that are what the task says."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from shoal.core.errors import CorruptStore, TaskError
from shoal.core.task import ArraySpec
from shoal.core.tree import Array, header, layout
from shoal.wire.codec import decode_tree, header_length, read_places
from shoal.wire.http import Connection


class FileTree(Mapping[str, Array]):
    """A safetensors file as a tree: every access reads one array, so that the whole never lies in memory.

    Raises BadRequest when it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            length = header_length(file.read(8))
            self._places = read_places(file.read(length), path.stat().st_size)

    def __getitem__(self, name: str) -> Array:
        place = self._places[name]
        return np.fromfile(self._path, place.dtype, math.prod(place.shape), offset=place.start).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape); nothing is read for it."""
        return {name: (place.dtype, place.shape) for name, place in self._places.items()}


def file_size(arrays: Mapping[str, ArraySpec]) -> int:
    """Return the number of bytes of the canonical file of these arrays."""
    data = sum(spec.size * np.dtype(spec.dtype).itemsize for spec in arrays.values())
    return len(header(_layout(arrays))) + data


def check_digest(digest: str, data: bytes) -> None:
    """Raise CorruptStore for bytes whose SHA-256 is another one."""
    for _ in checked(digest, [data], tuple):
        pass


def checked(digest: str, had: Iterable[bytes], rest: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    """Yield the rest as it comes, behind what was had before.

    Raises CorruptStore behind the last piece when the SHA-256 of all together is another one.
    """
    found, size = hashlib.sha256(), 0
    for piece in had:
        found.update(piece)
        size += len(piece)
    for piece in rest():
        found.update(piece)
        size += len(piece)
        yield piece
    if found.hexdigest() != digest:
        raise CorruptStore(
            f"blob {digest} arrived as {size} bytes with SHA-256 {found.hexdigest()}",
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
    _check_layout(arrays, layout(tree))
    return tree


def open_tree(path: Path, arrays: Mapping[str, ArraySpec]) -> FileTree:
    """Open a file that must hold exactly these arrays. Raises TaskError naming those that differ."""
    tree = FileTree(path)
    _check_layout(arrays, tree.layout)
    return tree


def _check_layout(arrays: Mapping[str, ArraySpec], given: Mapping[str, object]) -> None:
    differing = sorted(_differing(_layout(arrays), given))
    if differing:
        raise TaskError(f"a model's arrays {differing} are not those of its task", "publish the task again")


def _layout(arrays: Mapping[str, ArraySpec]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (spec.dtype, spec.shape) for name, spec in arrays.items()}


def _differing(expected: Mapping[str, object], given: Mapping[str, object]) -> Iterable[str]:
    return (name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
