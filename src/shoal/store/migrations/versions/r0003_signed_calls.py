"""Devices sign their calls and have no other secret; tokens have a number of uses, a scope, and can be revoked."""

import base64
import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add what is new; a device keeps its key, and is known by it from now on."""
    op.drop_column("devices", "secret_hash")
    op.add_column("devices", sa.Column("key_type", sa.Text, nullable=False, server_default="ed25519"))
    op.add_column("devices", sa.Column("scope", sa.Text, nullable=False, server_default="[]"))
    op.add_column("tokens", sa.Column("uses", sa.BigInteger))
    op.add_column("tokens", sa.Column("used", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("tokens", sa.Column("scope", sa.Text, nullable=False, server_default="[]"))
    op.add_column("tokens", sa.Column("revoked", sa.Double))
    devices = sa.table("devices", sa.column("number"), sa.column("id"), sa.column("public_key"))
    for number, key in op.get_bind().execute(sa.select(devices.c.number, devices.c.public_key)).all():
        named = hashlib.sha256(base64.b64decode(key)).hexdigest()[:32]
        op.execute(sa.update(devices).where(devices.c.number == number).values(id=named))
