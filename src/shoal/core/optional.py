"""Packages that only some need."""

from importlib import import_module
from typing import Any

from shoal.core.errors import ConfigurationError


def installed(name: str, package: str = "") -> Any:
    """Import an optional package; `package` is what to install for it, if that is called otherwise.

    Raises ConfigurationError, saying how to install it, without it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        wanted = package or name.partition(".")[0]
        raise ConfigurationError(f"{wanted} is not installed", f"pip install {wanted}") from error
