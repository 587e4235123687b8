"""Trees of arrays where they lie: small updates inline in the store, the rest as blobs; read slice by slice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from shoal.core.errors import NotFound
from shoal.core.task import ArraySpec
from shoal.core.tree import Array
from shoal.store.failpoints import reached
from shoal.store.store import Blobs, Store
from shoal.wire.codec import Place, header_length, read_places

BLOCK = 1 << 18
"""Elements of all arrays together that are in memory at once, for each update that is read."""

Slices = list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A safetensors file that is read in slices of flattened arrays."""

    places: Mapping[str, Place]
    read: Callable[[int, int], bytes]

    def slice(self, name: str, start: int, stop: int) -> Array:
        """Return elements [start, stop) of an array, flat."""
        place = self.places[name]
        width = np.dtype(place.dtype).itemsize
        return np.frombuffer(self.read(place.start + start * width, place.start + stop * width), place.dtype)


@dataclass(frozen=True, slots=True)
class Storage:
    """Store and blobs as one place to read bytes by digest."""

    store: Store
    blobs: Blobs

    def tree(self, digest: str) -> TreeFile:
        """Open a tree by its digest. Raises NotFound, BadRequest when it is no safetensors file."""
        inline = self.store.inline(digest)
        if inline is not None:
            return open_bytes(inline)
        size = self.blobs.size(digest)
        return _open(lambda start, stop: b"".join(self.blobs.open(digest, start, stop)), size)

    def forget(self, digests: tuple[str, ...]) -> None:
        """Remove updates by digest, wherever they lie."""
        self.store.discard(digests)
        reached("mid_discard")
        for digest in digests:
            try:
                published = self.blobs.namespace(digest) == "published"
            except NotFound:
                continue
            if not published:
                self.blobs.delete(digest)


def open_bytes(data: bytes) -> TreeFile:
    """Open a tree that is in memory."""
    return _open(lambda start, stop: data[start:stop], len(data))


def _open(read: Callable[[int, int], bytes], size: int) -> TreeFile:
    length = header_length(read(0, 8))
    return TreeFile(read_places(read(8, 8 + length), size), read)


def blocks(arrays: Mapping[str, ArraySpec]) -> Iterator[Slices]:
    """Cut arrays, sorted by name, into groups of slices of at most BLOCK elements together."""
    group: Slices = []
    room = BLOCK
    for name in sorted(arrays):
        size, start = arrays[name].size, 0
        while start < size or size == 0:
            stop = min(size, start + room)
            group.append((name, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield group
                group, room = [], BLOCK
            if size == 0:
                break
    if group:
        yield group
