"""What Alembic runs: the migrations, on the connection that it is given, in the transaction that this is in."""

from __future__ import annotations

from alembic import context

from kolosal.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
