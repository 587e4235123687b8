import errno
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.core.errors import StorageFull
from shoal.store.durable import append_durably, write_durably


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "a"
    write_durably(path, [b"old"])
    write_durably(path, [b"n", memoryview(b"ew")], 0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path):
    def full() -> Iterator[bytes]:
        yield b"ne"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a"
    write_durably(path, [b"old"])
    with pytest.raises(StorageFull, match=f"no space left for {path}"):
        write_durably(path, full())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_stay_what_they_are(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "absent" / "a", [b""])
    with pytest.raises(FileNotFoundError):
        append_durably(tmp_path / "absent" / "a", b"")


def test_lines_are_added(tmp_path: Path):
    for line in (b"one\n", b"two\n"):
        append_durably(tmp_path / "log", line, 0o600)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
