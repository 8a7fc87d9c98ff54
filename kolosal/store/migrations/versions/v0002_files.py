"""Files, and vector stores of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


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


def _part_of(table: str, column: str) -> sa.Column[str]:
    return sa.Column(column, sa.String(64), sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"{table}_by_{'_'.join(columns)}", table, list(columns))


def upgrade() -> None:
    """Make the tables."""
    _objects(
        "files",
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
    )
    _index("files", "owner", "seq")
    _index("files", "owner", "expires_at")
    _objects("vector_stores")
    _index("vector_stores", "owner", "seq")
    _objects("file_batches", _part_of("vector_stores", "vector_store_id"))
    _index("file_batches", "vector_store_id")
    _objects(
        "vector_store_files",
        _part_of("vector_stores", "vector_store_id"),
        _part_of("files", "file_id"),
        sa.Column("batch_id", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
    )
    _index("vector_store_files", "vector_store_id", "seq")
    _index("vector_store_files", "file_id")
    _index("vector_store_files", "batch_id")
    _index("vector_store_files", "status", "owner")
    op.create_table(
        "file_parts",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(256), nullable=False),
        _part_of("files", "file_id"),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    _index("file_parts", "file_id", "kind", "seq")
    op.create_table(
        "vector_blocks",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(256), nullable=False),
        _part_of("vector_stores", "vector_store_id"),
        _part_of("files", "file_id"),
        _part_of("vector_store_files", "entry_id"),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("vectors", sa.LargeBinary, nullable=False),
        sa.Column("texts", sa.Text, nullable=False),
    )
    _index("vector_blocks", "vector_store_id", "seq")
    _index("vector_blocks", "entry_id", "seq")
    _index("vector_blocks", "file_id")
