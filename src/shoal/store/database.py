"""What differs between the databases that a SQL store may lie in."""

from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from shoal.core.errors import StoreError

BUSY_SECONDS = 10.0
"""How long a write waits for another process to finish its own."""

WRITES: dict[str, Any] = {"writes": True}
"""Execution options of a transaction that writes: it begins when no other such one runs."""


class Database(Protocol):
    """One database. Its `engine` opens transactions that read, and with WRITES such as have it to themselves."""

    @property
    def name(self) -> str:
        """What people call it by; without a password."""
        ...

    @property
    def migration(self) -> str:
        """The command that brings it up to date."""
        ...

    @property
    def engine(self) -> Engine:
        """Where connections come from."""
        ...

    def check(self) -> None:
        """Raise CorruptStore or ConfigurationError when what is kept there would not be safe."""
        ...

    def explain(self, error: DBAPIError) -> StoreError:
        """Return what an error of the driver means."""
        ...
