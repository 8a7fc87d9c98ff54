"""Sessions of WebSocket clients, and what was said in them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def _objects(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        name,
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(256), nullable=False),
        *columns,
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )


def upgrade() -> None:
    """Make the tables."""
    _objects("sessions", sa.Column("expires_at", sa.BigInteger, nullable=False))
    op.create_index("sessions_by_owner_seq", "sessions", ["owner", "seq"])
    op.create_index("sessions_by_expires_at", "sessions", ["expires_at"])
    part_of = sa.ForeignKey("sessions.id", ondelete="CASCADE")
    _objects("exchanges", sa.Column("session_id", sa.String(64), part_of, nullable=False))
    op.create_index("exchanges_by_session_id_seq", "exchanges", ["session_id", "seq"])
