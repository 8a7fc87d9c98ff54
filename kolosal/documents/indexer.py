"""Indexer: cuts, embeds and keeps the files of vector stores, one after the other, while nobody waits.

What is to be done stands in the store: an entry that is `in_progress`. So a daemon that is started again goes on with it, and one that
forgets to wake this does no harm but until it is woken next. Keys take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, cast

from kolosal.config.documents import DocumentSettings
from kolosal.documents.embedding import chunking_for, count_tokens, embed, embedding_engine, embedding_record
from kolosal.documents.files import text_of_file
from kolosal.documents.records import EntryRecord, IndexingError, VectorStoreRecord
from kolosal.documents.vector_stores import keep_vector_store
from kolosal.engines.engine import Engine
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import ClientError, KolosalError, NotFound, StoreUnavailable
from kolosal.files.in_thread import in_thread
from kolosal.retrieval.chunks import ChunkingStrategy, chunk_slices, halves, segments
from kolosal.store.collections import VECTOR_STORE_FILES, VECTOR_STORES
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

log = logging.getLogger(__name__)

_BLOCK_CHUNKS: Final = 8
"""Chunks that are embedded at a time, and kept together."""

_RETRY_S: Final = 5.0
"""When the store is tried again after it failed."""

_LIMIT_S: Final = 60.0


class Indexer:
    """Works while there is something to do. Used on the event loop."""

    def __init__(self, store: ObjectStore, registry: EngineRegistry, settings: DocumentSettings) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._more = False
        self._turns: dict[str, int] = {}
        """When each owner had its last turn."""
        self._turn = 0

    def wake(self) -> None:
        """There is something to do."""
        self._more = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="indexer")

    async def close(self) -> None:
        """Stop. What is not done is done after the next start. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while self._more:
            self._more = False
            try:
                while await self._next():
                    pass
            except KolosalError as exc:
                log.warning("indexer.store_failed", extra={"reason": exc.message})
                await asyncio.sleep(_RETRY_S)
                self._more = True
        self._turns.clear()

    async def _next(self) -> bool:
        """Do one thing; whether there was any."""
        async with self._store.reading(None) as session:
            waiting = await session.documents.waiting_entries()
        if not waiting:
            return False
        first = min(waiting, key=lambda row: (self._turns.get(row.owner, 0), row.seq))
        owner, seq = str(first.owner), int(first.seq)
        self._turn += 1
        self._turns[owner] = self._turn
        async with self._store.reading(owner) as session:
            entry = cast("EntryRecord | None", await session.documents.entry_at(seq))
        if entry is not None:
            await self._index(owner, entry)
        return True

    async def _index(self, owner: str, entry: EntryRecord) -> None:
        try:
            size = await self._kept_chunks(owner, entry)
        except StoreUnavailable:
            raise
        except _Gone:
            return
        except KolosalError as exc:
            await self._finish(owner, entry, status="failed", usage_bytes=0, last_error=_told(exc))
        except Exception:
            log.exception("indexer.failed", extra={"file_id": entry["file_id"]})
            error: IndexingError = {"code": "server_error", "message": "Internal server error"}
            await self._finish(owner, entry, status="failed", usage_bytes=0, last_error=error)
        else:
            await self._finish(owner, entry, status="completed", usage_bytes=size, last_error=None)

    async def _kept_chunks(self, owner: str, entry: EntryRecord) -> int:
        """What the chunks of an entry take, once all are kept."""
        text = await text_of_file(self._store, owner, entry["file_id"])
        async with self._store.writing(owner) as session:
            store = cast("VectorStoreRecord", await session.get(VECTOR_STORES, entry["vector_store_id"]))
            await session.documents.drop_blocks(entry["id"])  # of a daemon that was stopped meanwhile
        engine = await embedding_engine(self._registry, self._settings, store["embedding"])
        chunks = await _chunks(engine, text, _strategy(engine, entry))
        size = 0
        for start in range(0, len(chunks), _BLOCK_CHUNKS):
            texts = chunks[start : start + _BLOCK_CHUNKS]
            vectors = b"".join(await embed(engine, texts))
            async with self._store.writing(owner) as session:
                await self._still_wanted(session, entry)
                size += await session.documents.keep_block(entry, vectors, texts)
                if not start:
                    await self._note_model(session, entry["vector_store_id"], engine)
        return size

    async def _note_model(self, session: StoreSession, vector_store_id: str, engine: Engine) -> None:
        """What made the first vectors makes all of them."""
        store = cast("VectorStoreRecord", await session.get(VECTOR_STORES, vector_store_id, lock=True))
        if store["embedding"] is None:
            await keep_vector_store(session, {**store, "embedding": embedding_record(engine)})

    async def _still_wanted(self, session: StoreSession, entry: EntryRecord) -> EntryRecord:
        found = cast("EntryRecord | None", await session.find(VECTOR_STORE_FILES, entry["id"], lock=True))
        if found is None or found["status"] != "in_progress":
            raise _Gone
        return found

    async def _finish(self, owner: str, entry: EntryRecord, **changes: Any) -> None:
        with contextlib.suppress(_Gone):
            async with self._store.writing(owner) as session:
                found = await self._still_wanted(session, entry)
                if changes["status"] != "completed":
                    await session.documents.drop_blocks(entry["id"])
                await session.replace(VECTOR_STORE_FILES, {**found, **changes}, status=changes["status"])
        log.info("indexer.file_indexed", extra={"file_id": entry["file_id"], "status": changes["status"]})


class _Gone(Exception):
    """Somebody deleted the file or the vector store, or cancelled this."""


def _told(error: KolosalError) -> IndexingError:
    """An error as a vector store says it."""
    if error.code in ("unsupported_file", "invalid_file"):
        return {"code": error.code, "message": error.message}  # type: ignore[typeddict-item] # it is one of them
    code = (
        "invalid_file"
        if isinstance(error, ClientError) and not isinstance(error, NotFound)
        else "server_error"
    )
    return {"code": code, "message": error.message}  # type: ignore[typeddict-item]


def _strategy(engine: Engine, entry: EntryRecord) -> ChunkingStrategy:
    given = entry["chunking"]
    return chunking_for(engine) if given is None else ChunkingStrategy(**given)


async def _chunks(engine: Engine, text: str, strategy: ChunkingStrategy) -> list[str]:
    """The chunks of a text, each with no more of this engine's tokens than it may have."""
    pieces, counts = list[str](), list[int]()
    for segment in await in_thread(lambda: [*segments(text)], limit_s=_LIMIT_S):
        await _count(engine, segment, strategy.max_chunk_size_tokens, pieces, counts)
    joined = ("".join(pieces[part]).strip() for part in chunk_slices(counts, strategy))
    return [chunk for chunk in joined if chunk]


async def _count(engine: Engine, segment: str, most: int, pieces: list[str], counts: list[int]) -> None:
    n_tokens = await count_tokens(engine, segment)
    if n_tokens <= most or len(segment) < 2:
        pieces.append(segment)
        counts.append(n_tokens)
        return
    for half in halves(segment):
        await _count(engine, half, most, pieces, counts)
