"""Importing much, quickly."""

import contextlib
import gc
from collections.abc import Iterator
from importlib.util import find_spec

from shoal.core.errors import ConfigurationError


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let a block import without garbage collection, and keep what it made out of every later one.

    Libraries make a million objects that are there to stay; looking through them again and again takes a tenth of
    the time that importing them takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def need_torch() -> None:
    """Raise ConfigurationError when PyTorch is not installed, without importing it."""
    if find_spec("torch") is None:
        raise ConfigurationError("training needs PyTorch, which is not installed", "pip install 'shoal[torch]'")
