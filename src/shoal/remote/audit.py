"""The owner's log of everything that left and everything that was refused: append-only, each line bound to the last.

A line is JSON with the digest of the line before (`previous`) and its own (`digest`, the SHA-256 of the others in
canonical form), so that no line can be changed, taken out or put in without breaking all that follow. Whoever can write
the file can cut off its end: the newest digest, kept elsewhere, shows that too.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from shoal.core.errors import CorruptStore, StorageFull

START = "0" * 64


class Audit:
    """One log; without a path it is kept in memory only. Several processes may write to one file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []

    def write(self, at: float, event: str, **facts: Any) -> str:
        """Add a line, durable before this returns; return its digest. Raises StorageFull; the log is then as before."""
        if self._path is None:
            line = _chained(self._lines[-1] if self._lines else None, at, event, facts)
            self._lines.append(line)
            return str(line["digest"])
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
            line = _chained(_last(file), at, event, facts)
            _append(file, json.dumps(line, sort_keys=True).encode() + b"\n")
        os.chmod(self._path, 0o600)
        return str(line["digest"])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield every line, checked. Raises CorruptStore, naming the first line that is not what was written."""
        previous = START
        for number, line in enumerate(self._read(), 1):
            if line.get("previous") != previous or line.get("number") != number or line.get("digest") != _digest(line):
                raise CorruptStore(
                    f"line {number} of {self._path or 'the audit log'} is not what was written",
                    "compare with a copy; what stands before it holds",
                )
            previous = str(line["digest"])
            yield line

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._path is None:
            yield from self._lines
            return
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {}
                yield line if isinstance(line, dict) else {}


def _append(file: FileIO, line: bytes) -> None:
    size = file.seek(0, os.SEEK_END)
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except OSError as error:
        file.truncate(size)  # half a line would end the chain
        raise StorageFull(f"the audit log was not written: {error.strerror}", "free space on that disk") from error


def _last(file: FileIO) -> dict[str, Any] | None:
    size = file.seek(0, os.SEEK_END)
    length = 4096
    while size:
        file.seek(max(0, size - length))
        whole = (file.read(length) or b"").rstrip(b"\n").rpartition(b"\n")
        if whole[1] or length >= size:
            try:
                found = json.loads(whole[2])
            except ValueError:
                found = None
            if not isinstance(found, dict) or "digest" not in found:
                raise CorruptStore(f"the last line of {file.name} is cut off", "`shoal audit verify` shows what holds")
            file.seek(0, os.SEEK_END)
            return found
        length *= 2
    return None


def _chained(last: dict[str, Any] | None, at: float, event: str, facts: dict[str, Any]) -> dict[str, Any]:
    previous, number = (START, 1) if last is None else (last["digest"], int(last["number"]) + 1)
    line = {**facts, "number": number, "at": at, "event": event, "previous": previous}
    return {**line, "digest": _digest(line)}


def _digest(line: dict[str, Any]) -> str:
    rest = {name: value for name, value in line.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
