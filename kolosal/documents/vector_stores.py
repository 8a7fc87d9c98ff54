"""Which files are in a vector store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from kolosal.documents.records import EntryRecord, StaticChunking, VectorStoreRecord, entry_id, expires_at
from kolosal.errors import InvalidRequest, NotFound
from kolosal.retrieval.filters import AttributeValue
from kolosal.store.collections import VECTOR_STORE_FILES, VECTOR_STORES

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

MAX_FILES: Final = 10_000
"""Files of one vector store: the OpenAI API's bound."""


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A file that is to be put into a vector store."""

    file_id: str
    attributes: Mapping[str, AttributeValue]
    chunking: StaticChunking | None = None


async def find_vector_store(
    session: StoreSession, vector_store_id: str, *, lock: bool = False
) -> VectorStoreRecord:
    """What is kept of a vector store.

    Raises:
        NotFound: there is none.
    """
    return cast("VectorStoreRecord", await session.get(VECTOR_STORES, vector_store_id, lock=lock))


async def keep_vector_store(session: StoreSession, record: VectorStoreRecord) -> None:
    """Keep another version of a vector store that this session has found."""
    await session.replace(VECTOR_STORES, record, expires_at=expires_at(record))


async def find_entry(
    session: StoreSession, vector_store_id: str, file_id: str, *, lock: bool = False
) -> EntryRecord:
    """What is kept of a file in a vector store.

    Raises:
        NotFound: there is no such vector store, or the file is not in it.
    """
    await find_vector_store(session, vector_store_id)
    found = await session.find(VECTOR_STORE_FILES, entry_id(vector_store_id, file_id), lock=lock)
    if found is None:
        raise NotFound(f"No file found with id '{file_id[:64]}' in vector store '{vector_store_id}'.")
    return cast("EntryRecord", found)


def refuse_expired(record: VectorStoreRecord) -> None:
    """Refuse to use a vector store whose time is over.

    Raises:
        InvalidRequest: it is.
    """
    end = expires_at(record)
    if end is not None and end <= time.time():
        raise InvalidRequest(f"The vector store '{record['id']}' has expired", code="vector_store_expired")


async def add_files(
    session: StoreSession, store: VectorStoreRecord, entries: Sequence[NewEntry], batch_id: str | None = None
) -> list[EntryRecord]:
    """Put files into a vector store that this session has found, to be embedded soon. One that is in it is embedded again.

    Raises:
        NotFound: one of them is not there.
        InvalidRequest: these would be too many, or one comes twice; or the vector store has expired.
    """
    refuse_expired(store)
    vector_store_id = store["id"]
    ids = [each.file_id for each in entries]
    if len(set(ids)) < len(ids):
        raise InvalidRequest("A file may be given once only", param="file_ids")
    files = await session.documents.files_of(ids)
    for file_id in ids:
        if file_id not in files:
            raise NotFound(f"No file found with id '{file_id}'.")
    for file_id in await session.documents.files_in(vector_store_id, ids):
        await session.delete(VECTOR_STORE_FILES, entry_id(vector_store_id, file_id))
    n_files = await session.count(VECTOR_STORE_FILES, "vector_store_id", vector_store_id) + len(ids)
    if n_files > MAX_FILES:
        raise InvalidRequest(f"The vector store would have {n_files} files: at most {MAX_FILES} are allowed")
    now = int(time.time())
    made = [_new(vector_store_id, each, files[each.file_id]["filename"], now) for each in entries]
    columns = {"vector_store_id": vector_store_id, "batch_id": batch_id, "status": "in_progress"}
    rows = [(each, {**columns, "file_id": each["file_id"]}) for each in made]
    await session.insert_all(VECTOR_STORE_FILES, rows)
    return made


def _new(vector_store_id: str, entry: NewEntry, filename: str, now: int) -> EntryRecord:
    return {
        "id": entry_id(vector_store_id, entry.file_id),
        "file_id": entry.file_id,
        "vector_store_id": vector_store_id,
        "filename": filename,
        "created_at": now,
        "status": "in_progress",
        "attributes": dict(entry.attributes),
        "chunking": entry.chunking,
        "usage_bytes": 0,
        "last_error": None,
    }
