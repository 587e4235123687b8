"""When a device called last; versions that are kept whatever else goes; the revision in alembic's own table."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what is new. Takes time that does not depend on how much the database holds."""
    op.add_column("devices", sa.Column("seen", sa.Double))
    op.create_table(
        "pins",
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("stream", "number"),
    )
    op.drop_table("schema")
