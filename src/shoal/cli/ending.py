"""How a command ends: errors as a block of text, and exit codes.

0 done, 1 an error of ours, 2 wrong usage, 130 interrupted.
"""

import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec

import typer

from shoal.core.errors import ConfigurationError, ShoalError, StorageFull

P = ParamSpec("P")

FAILED = 1
INTERRUPTED = 130


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command print its errors for a reader, and end with the exit code that belongs to them."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            command(*args, **options)
        except ShoalError as error:
            typer.echo(described(error), err=True)
            raise typer.Exit(FAILED) from error
        except OSError as error:
            if error.filename is None:  # such as a reader of our output that has gone
                raise
            typer.echo(described(_unusable(error)), err=True)
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error

    return run


def _unusable(error: OSError) -> ShoalError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left for {error.filename}", "free some on that disk, then try again")
    return ConfigurationError(f"{error.filename}: {error.strerror}", "check the path and its permissions")


def end_on_sigterm() -> None:
    """Take SIGTERM as a wish that is granted: end with exit code 0, at once, even in the middle of a call."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def described(error: ShoalError) -> str:
    """Return what is wrong, the way out, and the code to search for."""
    return f"error: {error.problem}\n  fix: {error.fix}\n code: {error.code}"


def leave(ending: SystemExit) -> None:
    """End the process, even while a thread is still importing.

    The interpreter stops such threads by unwinding their stacks, which aborts in the middle of an extension's C++.
    """
    if threading.active_count() == 1:
        raise ending
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ending.code if isinstance(ending.code, int) else 0)
