"""Whether a database is one of ours, and at the revision that this Shoal reads and writes."""

from sqlalchemy import Connection, inspect, select

from shoal.core.errors import CorruptStore, NewerDatabase, OlderDatabase
from shoal.store import tables
from shoal.store.database import Database

FIRST = "0001"
"""The revision of databases that were made before they recorded one; these have a table `schema`."""


def revision(connection: Connection) -> str:
    """Return the revision that a database is at; "" when it is empty. Raises CorruptStore when it is not ours."""
    names = inspect(connection).get_table_names()
    if tables.revision.name in names:
        found: str = connection.execute(select(tables.revision.c.version_num)).scalar_one()
        return found
    if "schema" in names and tables.events.name in names:
        return FIRST
    if names:
        raise CorruptStore("the database is that of something else", "give one of its own")
    return ""


def ready(connection: Connection, database: Database) -> None:
    """Make the tables of an empty database; raise NewerDatabase, OlderDatabase or CorruptStore for any but ours."""
    try:
        found = revision(connection)
    except CorruptStore as error:
        raise CorruptStore(f"{database.name} is the database of something else", error.fix) from error
    if not found:
        tables.metadata.create_all(connection)
        connection.execute(tables.revision.insert().values(version_num=tables.REVISION))
        return
    if found > tables.REVISION:
        raise NewerDatabase(
            f"{database.name} has schema revision {found}, this Shoal knows revisions up to {tables.REVISION}",
            "upgrade Shoal, or give another one",
        )
    if found < tables.REVISION:
        raise OlderDatabase(
            f"{database.name} has schema revision {found}, this Shoal needs {tables.REVISION}",
            f"back the home up, then run: {database.migration}",
        )
