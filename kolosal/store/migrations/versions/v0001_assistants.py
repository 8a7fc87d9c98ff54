"""Assistants, threads, messages, runs and their steps; what each owner has of bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _objects(name: str, *columns: sa.Column[str]) -> None:
    op.create_table(
        name,
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(256), nullable=False),
        *columns,
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )


def _part_of(table: str, column: str) -> sa.Column[str]:
    return sa.Column(column, sa.String(64), sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(256), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    _objects("assistants")
    op.create_index("assistants_by_owner_seq", "assistants", ["owner", "seq"])
    _objects("threads")
    op.create_index("threads_by_owner_seq", "threads", ["owner", "seq"])
    _objects("messages", _part_of("threads", "thread_id"), sa.Column("run_id", sa.String(64)))
    op.create_index("messages_by_thread_id_seq", "messages", ["thread_id", "seq"])
    _objects("runs", _part_of("threads", "thread_id"), sa.Column("status", sa.String(16), nullable=False))
    op.create_index("runs_by_thread_id_seq", "runs", ["thread_id", "seq"])
    op.create_index("runs_by_status", "runs", ["status"])
    _objects(
        "steps",
        _part_of("threads", "thread_id"),
        _part_of("runs", "run_id"),
        sa.Column("type", sa.String(32), nullable=False),
    )
    op.create_index("steps_by_run_id_seq", "steps", ["run_id", "seq"])
    op.create_index("steps_by_thread_id_seq", "steps", ["thread_id", "seq"])
