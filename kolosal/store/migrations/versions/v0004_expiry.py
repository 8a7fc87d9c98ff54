"""When vector stores expire, as a column: then their files are taken out of them."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the column, and fill it."""
    op.add_column("vector_stores", sa.Column("expires_at", sa.BigInteger))
    op.create_index("vector_stores_by_expires_at", "vector_stores", ["expires_at"])
    table = sa.table("vector_stores", sa.column("seq"), sa.column("data"), sa.column("expires_at"))
    connection = op.get_bind()
    for seq, data in connection.execute(sa.select(table.c.seq, table.c.data)).all():
        record = json.loads(data)
        if record["expires_after"] is not None:
            end = record["last_active_at"] + record["expires_after"]["days"] * 86_400
            connection.execute(sa.update(table).where(table.c.seq == seq).values(expires_at=end))
