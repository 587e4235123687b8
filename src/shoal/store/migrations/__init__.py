"""Bringing the database of an earlier Shoal up to date. Imports alembic: only the command `migrate` does that."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from shoal.store import schema, tables


def migrate(connection: Connection) -> tuple[str, str]:
    """Bring a database to the newest revision, in the caller's transaction; return the former revision and the new.

    Raises CorruptStore when it is not one of ours.
    """
    found = schema.revision(connection)
    if found and found < tables.REVISION:
        config = _config(connection)
        if found == schema.FIRST:
            command.stamp(config, schema.FIRST)
        command.upgrade(config, tables.REVISION)
    return found, schema.revision(connection)


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    folder = str(Path(__file__).parent).replace("%", "%%")  # alembic's settings interpolate
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config
