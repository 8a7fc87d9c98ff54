"""Responses of the Responses API, and the conversations that they are part of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "response_turns",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("previous", sa.BigInteger, sa.ForeignKey("response_turns.seq")),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
    )
    op.create_index("response_turns_by_owner_size", "response_turns", ["owner", "size"])
    op.create_index("response_turns_by_previous", "response_turns", ["previous"])
    op.create_table(
        "responses",
        sa.Column(
            "seq", sa.BigInteger, sa.ForeignKey("response_turns.seq"), primary_key=True, autoincrement=False
        ),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index("responses_by_owner_used_size", "responses", ["owner", "used", "size"])
    op.create_index("responses_by_expires_at", "responses", ["expires_at"])
    op.create_table(
        "response_items",
        sa.Column(
            "turn",
            sa.BigInteger,
            sa.ForeignKey("response_turns.seq", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("owner", sa.String(256), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("response_items_by_owner_id", "response_items", ["owner", "id"])
