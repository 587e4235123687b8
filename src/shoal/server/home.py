"""What lies where in a coordinator's home, and who may work on it as a whole."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.core.errors import ConfigurationError

DATABASE = "shoal.db"
BLOBS = "blobs"
UPLOADS = "uploads"
VARIANTS = "variants"
LOCK = "lock"


@contextmanager
def sharing(home: Path) -> Iterator[None]:
    """Serve a home: nobody changes it as a whole meanwhile. Makes it when it is not there.

    Raises ConfigurationError while somebody does that now.
    """
    with _locked(home, fcntl.LOCK_SH, "is being migrated or restored", "wait until that is done"):
        yield


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Change a home as a whole. Makes it when it is not there. Raises ConfigurationError while a coordinator runs."""
    with _locked(home, fcntl.LOCK_EX, "is in use by a coordinator", "stop that one first"):
        yield


def _open(home: Path) -> int:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{home} cannot be a coordinator's home: {error.strerror}", "give a folder that you may write to"
        ) from error


@contextmanager
def _locked(home: Path, kind: int, problem: str, fix: str) -> Iterator[None]:
    lock = _open(home)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigurationError(f"{home} {problem}", fix) from error
    finally:
        os.close(lock)
