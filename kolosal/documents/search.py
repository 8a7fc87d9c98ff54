"""Searching vector stores: the chunks that are nearest to a question."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from kolosal.config.documents import DocumentSettings
from kolosal.documents.embedding import embed, embedding_engine
from kolosal.documents.records import VectorStoreRecord
from kolosal.documents.vector_stores import keep_vector_store, refuse_expired
from kolosal.engines.registry import EngineRegistry
from kolosal.files.in_thread import in_thread
from kolosal.retrieval.citations import FoundText
from kolosal.retrieval.filters import Filter, matches
from kolosal.retrieval.ranking import NearestChunks, RankedChunk, VectorBlock
from kolosal.store.collections import VECTOR_STORES
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

MAX_RESULTS: Final = 50
"""The OpenAI API's bound."""

_BLOCKS_AT_ONCE: Final = 256
"""Blocks that are in memory at a time: some 2,000 chunks."""

_LIMIT_S: Final = 30.0
_ACTIVE_EVERY_S: Final = 60
"""How often it is noted that a vector store was used."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is looked for."""

    texts: Sequence[str]
    """Of several each chunk counts with the one that it is nearest to."""
    limit: int = 10
    threshold: float = 0.0
    """The least score."""
    filter: Filter | None = None


async def search(
    store: ObjectStore,
    registry: EngineRegistry,
    settings: DocumentSettings,
    owner: str | None,
    vector_store_id: str,
    query: SearchQuery,
) -> list[FoundText]:
    """The best chunks, the best first.

    Raises:
        NotFound: there is no such vector store.
        InvalidRequest: it has expired.
        KolosalError: what embedded it is not there, or cannot be loaded.
    """
    async with store.reading(owner) as session:
        record = cast("VectorStoreRecord", await session.get(VECTOR_STORES, vector_store_id))
        refuse_expired(record)
        entry_ids = await _filtered(session, vector_store_id, query.filter)
    await _note_active(store, owner, record)
    if record["embedding"] is None or entry_ids == []:
        return []
    engine = await embedding_engine(registry, settings, record["embedding"])
    nearest = NearestChunks(await embed(engine, query.texts), query.limit, query.threshold)
    seq = 0
    while True:
        async with store.reading(owner) as session:
            rows = await session.documents.next_blocks(vector_store_id, seq, _BLOCKS_AT_ONCE, entry_ids)
        if not rows:
            break
        seq = rows[-1].seq
        await in_thread(nearest.show, [VectorBlock(row.seq, row.vectors) for row in rows], limit_s=_LIMIT_S)
    return await _texts(store, owner, nearest.ranked())


async def _filtered(session: StoreSession, vector_store_id: str, given: Filter | None) -> list[str] | None:
    """The entries to look at; None: all of them."""
    if given is None:
        return None
    entries = await session.documents.entries_of(vector_store_id, "completed")
    return [entry["id"] for entry in entries if matches(given, entry["attributes"])]


async def _note_active(store: ObjectStore, owner: str | None, record: VectorStoreRecord) -> None:
    now = int(time.time())
    if now - record["last_active_at"] < _ACTIVE_EVERY_S:
        return
    async with store.writing(owner) as session:
        found = await session.find(VECTOR_STORES, record["id"], lock=True)
        if found is not None:
            record = cast("VectorStoreRecord", {**found, "last_active_at": now})
            await keep_vector_store(session, record)


async def _texts(store: ObjectStore, owner: str | None, ranked: Sequence[RankedChunk]) -> list[FoundText]:
    blocks = {chunk.block for chunk in ranked}
    async with store.reading(owner) as session:
        found = await session.documents.block_texts([*blocks])
    results = list[FoundText]()
    for chunk in ranked:
        if chunk.block in found:  # or it was deleted meanwhile
            entry, texts = found[chunk.block]
            results.append(
                FoundText(
                    entry["file_id"], entry["filename"], chunk.score, texts[chunk.index], entry["attributes"]
                )
            )
    return results
