"""DocumentRows: what is asked of the tables of files and vector stores besides their objects. As heavy as `StoreSession`, which has one."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, Select, func, select, update

from kolosal.store.collections import VECTOR_STORE_FILES
from kolosal.store.tables import FILE_PARTS, METADATA, VECTOR_BLOCKS

if TYPE_CHECKING:
    from kolosal.store.session import StoreSession

FILES = METADATA.tables["files"]
VECTOR_STORES_TABLE = METADATA.tables["vector_stores"]
ENTRIES = METADATA.tables["vector_store_files"]

_ROW_BYTES = 128
"""What a row counts besides its content."""


class DocumentRows:
    """Rows of the owner of a session."""

    def __init__(self, session: StoreSession) -> None:
        self._session = session

    # --- files ---

    async def keep_part(self, file_id: str, kind: str, data: bytes) -> None:
        """Keep the next piece of a file."""
        row = {"file_id": file_id, "kind": kind, "size": len(data) + _ROW_BYTES, "data": data}
        await self._session.insert_rows(FILE_PARTS, [row])

    async def next_part(self, file_id: str, kind: str, seq: int) -> Row[Any] | None:
        """`seq` and `data` of the piece that follows the one of this `seq`. The session has looked whose the file is."""
        query: Select[Any] = (
            select(FILE_PARTS.c.seq, FILE_PARTS.c.data)
            .where(FILE_PARTS.c.file_id == file_id, FILE_PARTS.c.kind == kind, FILE_PARTS.c.seq > seq)
            .order_by(FILE_PARTS.c.seq)
            .limit(1)
        )
        found: Row[Any] | None = (await self._session.connection.execute(query)).first()
        return found

    async def files_of(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Those of these files that there are."""
        query = select(FILES.c.id, FILES.c.data).where(
            FILES.c.owner == self._session.owner, FILES.c.id.in_(ids)
        )
        return {row.id: orjson.loads(row.data) for row in await self._session.connection.execute(query)}

    # --- vector stores ---

    async def status_counts(self, column: str, ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many entries have each status, by the vector store (`vector_store_id`) or batch (`batch_id`)."""
        by = ENTRIES.c[column]
        query = (
            select(by, ENTRIES.c.status, func.count())
            .where(ENTRIES.c.owner == self._session.owner, by.in_(ids))
            .group_by(by, ENTRIES.c.status)
        )
        counts: dict[str, dict[str, int]] = {each: {} for each in ids}
        for each, status, count in await self._session.connection.execute(query):
            counts[each][status] = count
        return counts

    async def vector_bytes(self, ids: Sequence[str]) -> dict[str, int]:
        """What the chunks of these vector stores take. They are this owner's."""
        by = VECTOR_BLOCKS.c.vector_store_id
        query = select(by, func.sum(VECTOR_BLOCKS.c.size)).where(by.in_(ids)).group_by(by)
        return {each: int(size) for each, size in await self._session.connection.execute(query)}

    async def entries_of(self, vector_store_id: str, status: str) -> list[Mapping[str, Any]]:
        """All entries of a vector store that have this status."""
        query = select(ENTRIES.c.data).where(
            ENTRIES.c.owner == self._session.owner,
            ENTRIES.c.vector_store_id == vector_store_id,
            ENTRIES.c.status == status,
        )
        return [orjson.loads(data) for data in await self._session.connection.scalars(query)]

    async def files_in(self, vector_store_id: str, ids: Sequence[str]) -> list[str]:
        """Those of these files that are in a vector store."""
        query = select(ENTRIES.c.file_id).where(
            ENTRIES.c.owner == self._session.owner,
            ENTRIES.c.vector_store_id == vector_store_id,
            ENTRIES.c.file_id.in_(ids),
        )
        return [*(await self._session.connection.scalars(query))]

    async def cancel_entries(self, batch_id: str) -> None:
        """No more is to be done for the entries of a batch that are in progress."""
        query = select(ENTRIES.c.id).where(
            ENTRIES.c.owner == self._session.owner,
            ENTRIES.c.batch_id == batch_id,
            ENTRIES.c.status == "in_progress",
        )
        for entry_id in [*(await self._session.connection.scalars(query))]:
            entry = await self._session.get(VECTOR_STORE_FILES, entry_id)
            await self.drop_blocks(entry_id)
            cancelled = {**entry, "status": "cancelled"}
            await self._session.replace(VECTOR_STORE_FILES, cancelled, status="cancelled")

    async def waiting_entries(self) -> list[Row[Any]]:
        """For each owner, whoever it is, the `seq` of its first entry in progress. For the daemon itself."""
        query = (
            select(ENTRIES.c.owner, func.min(ENTRIES.c.seq).label("seq"))
            .where(ENTRIES.c.status == "in_progress")
            .group_by(ENTRIES.c.owner)
        )
        return [*(await self._session.connection.execute(query))]

    async def entry_at(self, seq: int) -> Mapping[str, Any] | None:
        """The entry of this owner that was made then."""
        query = select(ENTRIES.c.data).where(ENTRIES.c.owner == self._session.owner, ENTRIES.c.seq == seq)
        found = await self._session.connection.scalar(query)
        return None if found is None else orjson.loads(found)

    async def empty(self, vector_store_id: str) -> None:
        """Take all files out of a vector store, which is this owner's and has expired."""
        for table in (VECTOR_BLOCKS, ENTRIES, METADATA.tables["file_batches"]):
            await self._session.delete_rows(table, table.c.vector_store_id == vector_store_id)
        over = update(VECTOR_STORES_TABLE).where(VECTOR_STORES_TABLE.c.id == vector_store_id)
        await self._session.connection.execute(over.values(expires_at=None))

    async def keep_block(self, entry: Mapping[str, Any], vectors: bytes, texts: Sequence[str]) -> int:
        """Keep consecutive chunks of an entry that this session has read; what they take."""
        written = orjson.dumps(texts).decode()
        size = len(vectors) + len(written) + _ROW_BYTES
        row = {
            "vector_store_id": entry["vector_store_id"],
            "file_id": entry["file_id"],
            "entry_id": entry["id"],
        }
        await self._session.insert_rows(
            VECTOR_BLOCKS, [{**row, "size": size, "vectors": vectors, "texts": written}]
        )
        return size

    async def drop_blocks(self, entry_id: str) -> None:
        """Delete the chunks of an entry that this session has read."""
        await self._session.delete_rows(VECTOR_BLOCKS, VECTOR_BLOCKS.c.entry_id == entry_id)

    async def next_blocks(
        self, vector_store_id: str, seq: int, limit: int, entry_ids: Several[str] | None
    ) -> list[Row[Any]]:
        """`seq` and `vectors` of the blocks that follow the one of this `seq`, of all entries that are ready or of some of them."""
        query = (
            select(VECTOR_BLOCKS.c.seq, VECTOR_BLOCKS.c.entry_id, VECTOR_BLOCKS.c.vectors)
            .join(ENTRIES, ENTRIES.c.id == VECTOR_BLOCKS.c.entry_id)
            .where(
                VECTOR_BLOCKS.c.vector_store_id == vector_store_id,
                VECTOR_BLOCKS.c.seq > seq,
                ENTRIES.c.owner == self._session.owner,
                ENTRIES.c.status == "completed",
            )
            .order_by(VECTOR_BLOCKS.c.seq)
            .limit(limit)
        )
        if entry_ids is not None:
            query = query.where(VECTOR_BLOCKS.c.entry_id.in_(entry_ids))
        return [*(await self._session.connection.execute(query))]

    async def block_texts(self, seqs: Sequence[int]) -> dict[int, tuple[Mapping[str, Any], list[str]]]:
        """The entries and texts of some blocks, by `seq`."""
        query = (
            select(VECTOR_BLOCKS.c.seq, VECTOR_BLOCKS.c.texts, ENTRIES.c.data)
            .join(ENTRIES, ENTRIES.c.id == VECTOR_BLOCKS.c.entry_id)
            .where(VECTOR_BLOCKS.c.seq.in_(seqs), ENTRIES.c.owner == self._session.owner)
        )
        rows = await self._session.connection.execute(query)
        return {row.seq: (orjson.loads(row.data), orjson.loads(row.texts)) for row in rows}
