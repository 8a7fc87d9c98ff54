"""StoreSession: one transaction in the name of one owner. The only place that asks the tables of objects anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import orjson
from sqlalchemy import (
    ColumnElement,
    Row,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    union,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from kolosal.errors import InvalidRequest, NotFound
from kolosal.store.collections import Collection, can_be_id
from kolosal.store.documents import DocumentRows
from kolosal.store.pages import PageRange, StoredRow, StorePage
from kolosal.store.responses import ResponseRows
from kolosal.store.statements import (
    insert_objects,
    parts_of,
    select_one,
    select_rows,
    shape_of,
    update_object,
)
from kolosal.store.tables import METADATA

OBJECT_BYTES = 256
"""What an object counts besides its JSON: its columns, and its places in indexes."""

_MAX_QUOTED_CHARS = 100
"""Characters of an id that an error message repeats."""

_THREAD_ABOVE_CHARS = 256 * 1024
"""JSON of one answer from the database that is parsed in a thread."""

_CHARGE = text(
    "INSERT INTO usage (owner, bytes) VALUES (:owner, :bytes)"
    " ON CONFLICT (owner) DO UPDATE SET bytes = usage.bytes + excluded.bytes"
)
_CHARGE_AND_TELL = text(f"{_CHARGE} RETURNING bytes")


class StoreSession:
    """Objects of one owner; those of others are as good as not there.

    Columns of a collection beside the object's JSON are given and asked for by keyword: `insert(RUNS, …, thread_id=thread_id)`.
    """

    def __init__(
        self, connection: AsyncConnection, owner: str, next_seq: Callable[[], int], max_bytes: int
    ) -> None:
        self.connection = connection
        self.owner = owner
        self.documents = DocumentRows(self)
        """Content, text and vectors of files."""
        self.responses = ResponseRows(self)
        """Responses, and the conversations that they are part of."""
        self.next_seq = next_seq
        """Gives the place of the next row, which is later than all before."""
        self.is_bounded = True
        """Whether more than the owner may have is refused."""
        self.max_bytes = max_bytes
        """What the owner may have."""
        self._added_bytes = 0
        self._sizes: dict[str, int] = {}
        """Of the objects that were read."""

    # --- reading ---

    async def get(
        self, collection: Collection, object_id: str, *, lock: bool = False, **columns: str
    ) -> Mapping[str, Any]:
        """An object; with `lock` nobody else changes it before this transaction has ended.

        Raises:
            NotFound: there is none, or it is another's.
        """
        found = await self.find(collection, object_id, lock=lock, **columns)
        if found is None:
            raise NotFound(f"No {collection.noun} found with id '{object_id[:_MAX_QUOTED_CHARS]}'.")
        return found

    async def find(
        self, collection: Collection, object_id: str, *, lock: bool = False, **columns: str
    ) -> Mapping[str, Any] | None:
        """The same; None where there is none."""
        if not can_be_id(object_id):
            return None
        query = select_one(collection.table, shape_of(columns), lock=lock)
        values = {"object_id": object_id, **self._values(columns)}
        found = (await self.connection.execute(query, values)).first()
        if found is None:
            return None
        self._sizes[object_id] = found.size
        return cast("Mapping[str, Any]", orjson.loads(found.data))

    async def page(self, collection: Collection, part: PageRange, **columns: str) -> StorePage:
        """A part of the list of all objects that have these columns.

        Raises:
            InvalidRequest: `after` or `before` is none of them.
        """
        bounds = {
            name: await self._seq(collection, name, object_id, columns)
            for name, object_id in (("after", part.after), ("before", part.before))
            if object_id is not None
        }
        backwards = "before" in bounds and "after" not in bounds
        ascending = (part.order == "asc") is not backwards
        if part.order == "desc":
            bounds = {"before" if name == "after" else "after": seq for name, seq in bounds.items()}
        rows = await self._rows(
            collection,
            columns,
            part.limit + 1,
            ascending=ascending,
            after=bounds.get("after"),
            before=bounds.get("before"),
        )
        kept = rows[: part.limit]
        return StorePage(kept[::-1] if backwards else kept, len(rows) > part.limit)

    async def newest(
        self,
        collection: Collection,
        limit: int,
        *,
        before: int | None = None,
        lock: bool = False,
        **columns: str | tuple[str, ...],
    ) -> Sequence[StoredRow]:
        """The last ones that were made, of those made before `before`, the newest first."""
        return await self._rows(collection, columns, limit, ascending=False, lock=lock, before=before)

    async def since(
        self, collection: Collection, seq: int, limit: int, **columns: str
    ) -> Sequence[StoredRow]:
        """Those that were made then or later, the oldest first."""
        return await self._rows(collection, columns, limit, ascending=True, after=seq - 1)

    async def count(self, collection: Collection, column: str, value: str) -> int:
        """How many objects have this id of what they are part of, which is the owner's."""
        table = _table(collection)
        query = select(func.count()).select_from(table).where(table.c[column] == value)
        return int(await self.connection.scalar(query) or 0)

    async def used_bytes(self) -> int:
        """What all objects of this owner take."""
        found = await self.connection.scalar(
            text("SELECT bytes FROM usage WHERE owner = :owner"), {"owner": self.owner}
        )
        return int(found or 0)

    async def beyond(self, collection: Collection, count: int, limit: int) -> list[str]:
        """The ids of the objects that were made before this owner's newest ones, the newest of them first."""
        table = _table(collection)
        query = select(table.c.id).where(table.c.owner == self.owner).order_by(table.c.seq.desc())
        return [*(await self.connection.scalars(query.offset(count).limit(limit)))]

    # --- what has expired ---

    async def expired(self, collection: Collection, now: int, limit: int) -> list[str]:
        """The ids of this owner's objects whose time is over."""
        table = _table(collection)
        query = select(table.c.id).where(table.c.expires_at <= now, table.c.owner == self.owner).limit(limit)
        return [*(await self.connection.scalars(query))]

    async def has_expired(self, now: int) -> bool:
        """Whether this owner has anything whose time is over."""
        found = (
            select(table.c.seq).where(table.c.expires_at <= now, table.c.owner == self.owner)
            for table in _EXPIRING
        )
        return await self.connection.scalar(select(or_(*(each.exists() for each in found)))) or False

    async def owners_of_expired(self, now: int) -> list[str]:
        """All owners that have, for the daemon itself."""
        found = (select(table.c.owner).where(table.c.expires_at <= now) for table in _EXPIRING)
        return [*(await self.connection.scalars(union(*found)))]

    # --- writing ---

    async def insert(
        self, collection: Collection, value: Mapping[str, Any], **columns: str | int | None
    ) -> None:
        """Keep an object, which has its `id` in it."""
        await self.insert_all(collection, [(value, columns)])

    async def insert_all(
        self,
        collection: Collection,
        values: Iterable[tuple[Mapping[str, Any], Mapping[str, str | int | None]]],
    ) -> None:
        """Keep several, each with its columns, in this order."""
        rows = [
            {"seq": self.next_seq(), "id": value["id"], "owner": self.owner, **self._data(value), **columns}
            for value, columns in values
        ]
        if rows:
            self._sizes |= {row["id"]: row["size"] for row in rows}
            self._added_bytes += sum(row["size"] for row in rows)
            await self.connection.execute(insert_objects(collection.table), rows)

    async def replace(
        self, collection: Collection, value: Mapping[str, Any], **columns: str | int | None
    ) -> None:
        """Keep another version of an object that this session has read or kept, with other values in these columns."""
        kept = self._data(value)
        self._added_bytes += kept["size"] - self._sizes[value["id"]]
        self._sizes[value["id"]] = kept["size"]
        changes = {"object_id": value["id"], "owner_is": self.owner, **kept, **columns}
        await self.connection.execute(update_object(collection.table), changes)

    async def delete(self, collection: Collection, object_id: str, **columns: str) -> None:
        """Delete an object and all that is part of it.

        Raises:
            NotFound: there is none, or it is another's.
        """
        table = _table(collection)
        await self.get(collection, object_id, lock=True, **columns)
        for part, column in parts_of(table):
            self._added_bytes -= await self._size(part, part.c[column] == object_id)
        self._added_bytes -= await self._size(table, table.c.id == object_id)
        await self.connection.execute(delete(table).where(table.c.id == object_id))

    async def delete_up_to(self, collection: Collection, seq: int, **columns: str) -> None:
        """Delete the objects that have these columns and were made then or before."""
        table = _table(collection)
        same = [table.c[name] == value for name, value in columns.items()]
        await self.delete_rows(table, and_(table.c.owner == self.owner, table.c.seq <= seq, *same))

    async def keep_newest(
        self, collection: Collection, max_count: int, max_bytes: int, **columns: str
    ) -> None:
        """Delete the oldest objects that have these columns until there are no more than this; the newest one stays."""
        table = _table(collection)
        same = [table.c[name] == value for name, value in columns.items()]
        query = (
            select(table.c.seq, table.c.size)
            .where(table.c.owner == self.owner, *same)
            .order_by(table.c.seq.desc())
            .limit(max_count + 1)
        )
        size = 0
        for index, row in enumerate((await self.connection.execute(query)).all()):
            size += row.size
            if index > 0 and (index == max_count or size > max_bytes):
                await self.delete_up_to(collection, row.seq, **columns)
                return

    async def insert_rows(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows that are no objects, but part of one that this session has read or kept; each says its `size`."""
        self._added_bytes += sum(row["size"] for row in rows)
        await self.connection.execute(
            insert(table), [{"seq": self.next_seq(), "owner": self.owner, **row} for row in rows]
        )

    async def delete_rows(self, table: Table, condition: ColumnElement[bool]) -> None:
        """Delete such rows."""
        self._added_bytes -= await self._size(table, condition)
        await self.connection.execute(delete(table).where(condition))

    def charge(self, n_bytes: int) -> None:
        """Count bytes of rows that this session keeps, or deletes, by itself."""
        self._added_bytes += n_bytes

    async def settle(self) -> None:
        """Count what was added and deleted, at the end of the transaction.

        Raises:
            InvalidRequest: the owner has more than it may.
        """
        if self._added_bytes == 0:
            return
        charge = {"owner": self.owner, "bytes": self._added_bytes}
        if not self.is_bounded or self._added_bytes < 0:
            await self.connection.execute(_CHARGE, charge)
            return
        used = int((await self.connection.execute(_CHARGE_AND_TELL, charge)).scalar_one())
        if used > self.max_bytes:
            raise InvalidRequest(
                f"This would be {used} bytes that are kept for this API key, but {self.max_bytes} are allowed:"
                " delete threads, files or assistants",
                code="storage_limit_exceeded",
            )

    # --- inside ---

    def _data(self, value: Mapping[str, Any]) -> dict[str, Any]:
        data = orjson.dumps(value)
        return {"size": len(data) + OBJECT_BYTES, "data": data.decode()}

    def _values(self, columns: Mapping[str, str | tuple[str, ...]]) -> dict[str, Any]:
        """What a statement of this shape is executed with."""
        return {"owner_is": self.owner, **{f"{name}_is": value for name, value in columns.items()}}

    async def _seq(
        self, collection: Collection, name: str, object_id: str, columns: Mapping[str, str]
    ) -> int:
        found = None
        if can_be_id(object_id):
            query = select_one(collection.table, shape_of(columns), lock=False)
            values = {"object_id": object_id, **self._values(columns)}
            found = (await self.connection.execute(query, values)).first()
        if found is None:
            shown = object_id[:_MAX_QUOTED_CHARS]
            raise InvalidRequest(
                f"{name} must be the id of an object of this list, not '{shown}'", param=name
            )
        return int(found.seq)

    async def _rows(
        self,
        collection: Collection,
        columns: Mapping[str, str | tuple[str, ...]],
        limit: int,
        *,
        ascending: bool,
        lock: bool = False,
        after: int | None = None,
        before: int | None = None,
    ) -> list[StoredRow]:
        """Rows that were made after and before these ones, in the order in which they were made or the opposite one."""
        query = select_rows(
            collection.table, shape_of(columns), after is not None, before is not None, ascending, lock
        )
        values = {"rows": limit, "after": after, "before": before, **self._values(columns)}
        rows = (await self.connection.execute(query, values)).all()
        self._sizes |= {row.id: row.size for row in rows}
        if sum(len(row.data) for row in rows) > _THREAD_ABOVE_CHARS:
            return await asyncio.to_thread(_parsed, rows)
        return _parsed(rows)

    async def _size(self, table: Table, condition: ColumnElement[bool]) -> int:
        query = select(func.coalesce(func.sum(table.c.size), 0)).where(condition)
        return int(await self.connection.scalar(query) or 0)


def _parsed(rows: Sequence[Row[Any]]) -> list[StoredRow]:
    return [StoredRow(row.seq, row.id, orjson.loads(row.data)) for row in rows]


def _table(collection: Collection) -> Table:
    return METADATA.tables[collection.table]


_EXPIRING = [table for table in METADATA.tables.values() if "expires_at" in table.c]
