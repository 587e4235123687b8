"""Trees of arrays where they lie: small updates inline in the store, the rest as blobs; read slice by slice."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from shoal.core.errors import CorruptStore, NotFound
from shoal.core.task import ArraySpec
from shoal.core.tree import Array
from shoal.store.events import RESTORE
from shoal.store.failpoints import reached
from shoal.store.store import Blobs, Store
from shoal.wire.codec import Place, header_length, read_places

BLOCK = 1 << 16
"""Elements of all arrays together that are in memory at once, for each update that is read."""

Slices = list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A safetensors file that is read in slices of flattened arrays; `in_memory` says that it holds all its bytes."""

    places: Mapping[str, Place]
    read: Callable[[int, int], bytes]
    in_memory: bool = False

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
    _sound: set[str] = field(default_factory=set[str], repr=False, compare=False)

    def written(self, digest: str) -> None:
        """Note that a blob's bytes were hashed when they were written, by this process."""
        self._sound.add(digest)

    def check(self, digest: str) -> None:
        """Read a blob that this process has not yet read, and see that its bytes are those of its digest.

        Takes a while for a large one. Raises NotFound, CorruptStore.
        """
        if digest in self._sound:
            return
        found = hashlib.sha256()
        for piece in self.blobs.open(digest):
            found.update(piece)
        if found.hexdigest() != digest:
            raise _damaged(digest, found.hexdigest())
        self._sound.add(digest)

    def tree(self, digest: str) -> TreeFile:
        """Open a tree by its digest. Raises NotFound, CorruptStore, BadRequest when it is no safetensors file."""
        return self._inline(digest) or self._blob(digest)

    def _inline(self, digest: str) -> TreeFile | None:
        inline = self.store.inline(digest)
        if inline is None:
            return None
        if (found := hashlib.sha256(inline).hexdigest()) != digest:
            raise _damaged(digest, found)
        return open_bytes(inline)

    def _blob(self, digest: str) -> TreeFile:
        size = self.blobs.size(digest)
        return _open(lambda start, stop: b"".join(self.blobs.open(digest, start, stop)), size)

    def checked(self, digest: str) -> TreeFile:
        """Open a tree whose bytes are known to be those of its digest. Raises as `tree` and `check`."""
        inline = self._inline(digest)
        if inline is not None:
            return inline
        self.check(digest)
        return self._blob(digest)

    def forget(self, digests: tuple[str, ...]) -> None:
        """Remove updates by digest, wherever they lie."""
        self.store.discard(digests)
        reached("mid_discard")
        for digest in digests:
            self._sound.discard(digest)
            try:
                published = self.blobs.namespace(digest) == "published"
            except NotFound:
                continue
            if not published:
                self.blobs.delete(digest)


def _damaged(digest: str, found: str) -> CorruptStore:
    return CorruptStore(f"the bytes kept as {digest} have the SHA-256 {found}", RESTORE)


def open_bytes(data: bytes) -> TreeFile:
    """Open a tree that is in memory."""
    return _open(lambda start, stop: data[start:stop], len(data), in_memory=True)


def _open(read: Callable[[int, int], bytes], size: int, *, in_memory: bool = False) -> TreeFile:
    length = header_length(read(0, 8))
    return TreeFile(read_places(read(8, 8 + length), size), read, in_memory)


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
