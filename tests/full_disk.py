"""A real disk of 2 MB: a tmpfs of its own, in a namespace of its own where there is no right to mount one here."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 2 << 20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of 2 MB in an empty folder. Needs the right to mount; see `inside` for processes without it."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def inside(test: str, folder: Path) -> None:
    """Run `python -m TEST FOLDER` as root of a namespace of its own, and fail with what it printed if it fails."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-W", "error", "-m", test, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def fill(folder: Path) -> Path:
    """Take all the space that is left, and return the file that takes it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast
