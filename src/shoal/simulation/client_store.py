"""What stays with simulated clients from round to round: in memory while it is little, on disk beyond that.

All clients of a task keep the same arrays, so that each is a row of bytes. A million clients with SCAFFOLD then take
disk, not memory; nothing is left of the file when the run ends.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shoal.core.errors import TaskError
from shoal.core.tree import Array, Layout, Tree, layout
from shoal.store.durable import storage_full

MEMORY_BYTES = 512 << 20
"""Bytes of all clients' rows beyond which they lie in a file of the system's folder for such files (TMPDIR)."""

Rows = npt.NDArray[np.uint8]


class ClientStore(MutableMapping[str, Tree]):
    """Trees by client name, all of one layout; `most` bytes of them are held in memory."""

    def __init__(self, most: int = MEMORY_BYTES) -> None:
        self.layout: Layout = {}
        self._most = most
        self._slots: dict[str, int] = {}
        self._rows: list[bytes] = []
        self._file: IO[bytes] | None = None

    @property
    def spilled(self) -> bool:
        """Whether the rows lie in a file."""
        return self._file is not None

    @property
    def row_bytes(self) -> int:
        """Bytes that a client takes."""
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in self.layout.values())

    def __getitem__(self, name: str) -> Tree:
        """Return a client's tree, read-only."""
        return _tree(self._row(self._slots[name]), self.layout)

    def __setitem__(self, name: str, tree: Tree) -> None:
        """Keep a client's tree. Raises StorageFull, and TaskError for a tree of other arrays than the others have."""
        found = layout(tree)
        if not self.layout:
            self.layout = {array: found[array] for array in sorted(found)}
        if found != self.layout:
            raise TaskError(
                f"client {name!r} keeps the arrays {sorted(found)}, others {sorted(self.layout)}",
                "let the rule keep the same arrays for every client",
            )
        slot = self._slots.setdefault(name, len(self._slots))
        self._write(slot, b"".join(np.ascontiguousarray(tree[array]).tobytes() for array in self.layout))

    def __delitem__(self, name: str) -> None:
        raise TypeError("what clients keep is replaced, never removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, name: object) -> bool:
        return name in self._slots

    def rows(self) -> Rows:
        """Return all rows, [clients, bytes], in the order of the names; a file's are not read into memory for it."""
        shape = (len(self._slots), self.row_bytes)
        if self._file is not None and shape[0]:
            self._file.flush()
            mapped: Rows = np.memmap(self._file, np.uint8, "r", shape=shape)
            return mapped
        return np.frombuffer(b"".join(self._rows), np.uint8).reshape(shape)

    def restore(self, names: list[str], rows: Rows, described: Mapping[str, Any]) -> None:
        """Take over what `rows` and `layout` of another store gave, one row after the other."""
        self.layout = {name: (dtype, tuple(shape)) for name, (dtype, shape) in described.items()}
        for slot, name in enumerate(names):
            self._slots[name] = slot
            self._write(slot, rows[slot].tobytes())

    def _row(self, slot: int) -> bytes:
        if self._file is None:
            return self._rows[slot]
        return os.pread(self._file.fileno(), self.row_bytes, slot * self.row_bytes)

    def _write(self, slot: int, row: bytes) -> None:
        if self._file is None and slot == len(self._rows):
            if (slot + 1) * self.row_bytes <= self._most:
                self._rows.append(row)
                return
            self._spill()
        if self._file is None:
            self._rows[slot] = row
        else:
            self._put(row, slot * self.row_bytes)

    def _spill(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the store)
        weakref.finalize(self, self._file.close)
        for slot, row in enumerate(self._rows):
            self._put(row, slot * self.row_bytes)
        self._rows = []

    def _put(self, data: bytes, offset: int) -> None:
        assert self._file is not None
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise storage_full(Path(tempfile.gettempdir()), error) from error


def _tree(row: bytes, described: Layout) -> dict[str, Array]:
    tree, offset = {}, 0
    for name, (dtype, shape) in described.items():
        count = math.prod(shape)
        tree[name] = np.frombuffer(row, dtype, count, offset).reshape(shape)
        offset += count * np.dtype(dtype).itemsize
    return tree
