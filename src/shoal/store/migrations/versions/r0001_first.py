"""The tables of the first Shoal. A database that has them is stamped with this revision; none is made by way of it."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Leave everything as it is: the tables are there."""
