"""What alembic runs: the migrations, on the connection and in the transaction of its caller."""

from alembic import context

from shoal.store import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables.metadata)
context.run_migrations()
