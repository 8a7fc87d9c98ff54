"""The tables, as SQLAlchemy knows them; `migrations/` makes them, and a test compares both.

An object is kept as it is shown, as JSON, beside columns for what it is looked for by. `seq` orders the objects of all tables by when they
were made. `size` is what an object counts of its owner's bytes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

MAX_ID_CHARS = 64
MAX_OWNER_CHARS = 256
MAX_ITEM_ID_CHARS = 256
"""Clients choose ids of items themselves."""


def _objects(name: str, *columns: Column[Any], indexes: tuple[tuple[str, ...], ...]) -> Table:
    return Table(
        name,
        METADATA,
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("id", String(MAX_ID_CHARS), nullable=False, unique=True),
        Column("owner", String(MAX_OWNER_CHARS), nullable=False),
        *columns,
        Column("size", BigInteger, nullable=False),
        Column("data", Text, nullable=False),
        *(Index(f"{name}_by_{'_'.join(index)}", *index) for index in indexes),
    )


def _part_of(table: str, column: str) -> Column[str]:
    """An id of what the object is part of, with which it is deleted."""
    return Column(column, String(MAX_ID_CHARS), ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False)


USAGE = Table(
    "usage",
    METADATA,
    Column("owner", String(MAX_OWNER_CHARS), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)
"""What each owner's objects take together."""

_objects("assistants", indexes=(("owner", "seq"),))
_objects("threads", indexes=(("owner", "seq"),))
_objects(
    "messages",
    _part_of("threads", "thread_id"),
    Column("run_id", String(MAX_ID_CHARS)),
    indexes=(("thread_id", "seq"),),
)
_objects(
    "runs",
    _part_of("threads", "thread_id"),
    Column("status", String(16), nullable=False),
    indexes=(("thread_id", "seq"), ("status",)),
)
_objects(
    "steps",
    _part_of("threads", "thread_id"),
    _part_of("runs", "run_id"),
    Column("type", String(32), nullable=False),
    indexes=(("run_id", "seq"), ("thread_id", "seq")),
)

_objects(
    "files",
    Column("purpose", String(32), nullable=False),
    Column("expires_at", BigInteger),
    indexes=(("owner", "seq"), ("owner", "expires_at")),
)
_objects(
    "vector_stores",
    Column("expires_at", BigInteger),
    indexes=(("owner", "seq"), ("expires_at",)),
)
_objects(
    "file_batches",
    _part_of("vector_stores", "vector_store_id"),
    indexes=(("vector_store_id",),),
)
_objects(
    "vector_store_files",
    _part_of("vector_stores", "vector_store_id"),
    _part_of("files", "file_id"),
    Column("batch_id", String(MAX_ID_CHARS)),
    Column("status", String(16), nullable=False),
    indexes=(("vector_store_id", "seq"), ("file_id",), ("batch_id",), ("status", "owner")),
)

_objects(
    "sessions",
    Column("expires_at", BigInteger, nullable=False),
    indexes=(("owner", "seq"), ("expires_at",)),
)
_objects("exchanges", _part_of("sessions", "session_id"), indexes=(("session_id", "seq"),))

FILE_PARTS = Table(
    "file_parts",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(MAX_OWNER_CHARS), nullable=False),
    _part_of("files", "file_id"),
    Column("kind", String(8), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("file_parts_by_file_id_kind_seq", "file_id", "kind", "seq"),
)
"""A file's content, and its text where that is another thing, in pieces."""

VECTOR_BLOCKS = Table(
    "vector_blocks",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(MAX_OWNER_CHARS), nullable=False),
    _part_of("vector_stores", "vector_store_id"),
    _part_of("files", "file_id"),
    _part_of("vector_store_files", "entry_id"),
    Column("size", BigInteger, nullable=False),
    Column("vectors", LargeBinary, nullable=False),
    Column("texts", Text, nullable=False),
    Index("vector_blocks_by_vector_store_id_seq", "vector_store_id", "seq"),
    Index("vector_blocks_by_entry_id_seq", "entry_id", "seq"),
    Index("vector_blocks_by_file_id", "file_id"),
)
"""Consecutive chunks of a file in a vector store: their vectors one after the other, and their texts as a JSON array."""

RESPONSE_TURNS = Table(
    "response_turns",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(MAX_OWNER_CHARS), nullable=False),
    Column("previous", BigInteger, ForeignKey("response_turns.seq")),
    Column("size", BigInteger, nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Index("response_turns_by_owner_size", "owner", "size"),
    Index("response_turns_by_previous", "previous"),
)
"""What each request to the Responses API added to a conversation, and what the model added: items, as JSON arrays. A conversation is a turn
with all those before it. A turn outlives its response for as long as another one follows it."""

RESPONSES = Table(
    "responses",
    METADATA,
    Column("seq", BigInteger, ForeignKey("response_turns.seq"), primary_key=True, autoincrement=False),
    Column("id", String(MAX_ID_CHARS), nullable=False, unique=True),
    Column("owner", String(MAX_OWNER_CHARS), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("data", Text, nullable=False),
    Index("responses_by_owner_used_size", "owner", "used", "size"),
    Index("responses_by_expires_at", "expires_at"),
)
"""Responses without their output, each with the `seq` of its turn. `used` orders them by when they were kept or followed up."""

RESPONSE_ITEMS = Table(
    "response_items",
    METADATA,
    Column(
        "turn",
        BigInteger,
        ForeignKey("response_turns.seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("id", String(MAX_ITEM_ID_CHARS), primary_key=True),
    Column("owner", String(MAX_OWNER_CHARS), nullable=False),
    Index("response_items_by_owner_id", "owner", "id"),
    sqlite_with_rowid=False,
)
"""Which turns have an item."""
