"""The tables of a SQL store. `events` is the truth; `accepted` and `versions` are projections of it.

The unique indexes of the projections are the last guard of "exactly once": no assignment of a stream is accepted
twice, no round of it is committed twice.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

REVISION = "0004"
"""The newest of the migrations; a database records the one that it is at, and only one at this is opened."""

metadata = MetaData()

# alembic's own record, under the name that it gives it.
revision = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

streams = Table(
    "streams",
    metadata,
    Column("name", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    # The rank of its first event among all streams; none before.
    Column("rank", BigInteger, unique=True),
)

events = Table(
    "events",
    metadata,
    Column("stream", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("stream", "position"),
)

accepted = Table(
    "accepted",
    metadata,
    Column("stream", Text, nullable=False),
    Column("assignment", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("weight", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("stream", "assignment"),
)

versions = Table(
    "versions",
    metadata,
    Column("stream", Text, nullable=False),
    Column("round", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("checkpoint", Text, nullable=False),
    PrimaryKeyConstraint("stream", "round"),
)

inline = Table(
    "inline",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

pins = Table(
    "pins",
    metadata,
    Column("stream", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    PrimaryKeyConstraint("stream", "number"),
)

# What a coordinator alone may know, by name: its key for receipts.
secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("enrolled", Double, nullable=False),
    Column("revoked", Double),
    Column("seen", Double),
    Column("key_type", Text, nullable=False),
    # names of tasks, as a list in JSON
    Column("scope", Text, nullable=False),
    UniqueConstraint("id"),
    UniqueConstraint("name"),
)

# Devices that asked to join without a token, and that a person turned away.
refused = Table(
    "refused",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("key_type", Text, nullable=False),
    Column("at", Double, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("uses", BigInteger),
    Column("used", BigInteger, nullable=False),
    Column("scope", Text, nullable=False),
    Column("revoked", Double),
    UniqueConstraint("hash"),
)
