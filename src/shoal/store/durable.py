"""Writing a file so that a crash leaves the old one or the new one, whole."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from shoal.core.errors import ConfigurationError, StorageFull

PARTIAL = ".partial"
"""How the names of files end that were not finished; whoever finds one after a crash may remove it."""


def check_place(path: Path) -> None:
    """Make the folder of a file that is to be written. Raises ConfigurationError where it cannot be."""
    why = "it is a folder" if path.is_dir() else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            why = f"you may not write to {path.parent}"
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
    if why:
        raise ConfigurationError(f"{path} cannot be written: {why}", "give the name of a file in a folder of yours")


def write_durably(path: Path, pieces: Iterable[bytes | memoryview], mode: int = 0o644) -> None:
    """Replace `path` by these bytes; returns once they would survive a power cut. Raises StorageFull."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        _write(partial, pieces, mode)
        partial.replace(path)
    except OSError as error:
        raise storage_full(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_durably(path: Path, line: bytes, mode: int = 0o644) -> None:
    """Add bytes to the end of `path`; returns once they would survive a power cut. Raises StorageFull."""
    created = not path.exists()
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode), "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_full(path, error) from error
    if created:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_full(path: Path, error: OSError) -> Exception:
    """Return StorageFull for an error that says so, and any other error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"no space left for {path}", "free space on that disk; nothing was lost")
    return error


def _write(path: Path, pieces: Iterable[bytes | memoryview], mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
