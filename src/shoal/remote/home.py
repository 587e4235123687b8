"""The folder in which a worker keeps requests, the log and budgets: one worker at a time writes there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.core.errors import ConfigurationError


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold a home for this process. Raises ConfigurationError where another worker has it, or it cannot be written.

    Two workers with one ledger would each spend the whole of a budget.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (home / "lock").open("ab")
    except OSError as error:
        raise ConfigurationError(f"{home}: {error.strerror}", "give a --home that can be written") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{home} is in use by another worker", "stop that one, or give this one a --home of its own"
            ) from error
        yield
