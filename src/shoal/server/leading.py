"""Who may work on a database: in PostgreSQL one coordinator at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoal.core.errors import ConfigurationError
from shoal.store.database import Database

if TYPE_CHECKING:
    from shoal.store.lead import Lead


@contextmanager
def leading(where: Database, *, standby: bool = False) -> Iterator["Lead | None"]:
    """Be the one coordinator of a PostgreSQL database, with `standby` once no other is.

    In SQLite the one that starts last leads, task by task. Raises ConfigurationError while another coordinator leads.
    """
    if where.engine.dialect.name != "postgresql":
        if standby:
            raise ConfigurationError("--standby without a PostgreSQL database", "give one with --database")
        yield None
        return
    from shoal.store.lead import Lead
    from shoal.store.postgres import PostgresDatabase

    assert isinstance(where, PostgresDatabase)
    lead = Lead(where)
    lead.lock(standby=standby)
    try:
        yield lead
    finally:
        lead.close()
