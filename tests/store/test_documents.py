"""What is asked of files, vector stores and sessions, of each database, and what has expired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kolosal.store.collections import (
    EXCHANGES,
    FILE_BATCHES,
    FILES,
    SESSIONS,
    VECTOR_STORE_FILES,
    VECTOR_STORES,
    Collection,
)
from kolosal.store.expiry import drop_everyones, drop_expired
from kolosal.store.session import StoreSession
from kolosal.store.store import ObjectStore

Stores = Callable[..., ObjectStore]


async def fill(session: StoreSession, name: str, expires_at: int | None) -> dict[str, Any]:
    """A file in two parts, in a vector store with two blocks, put there by a batch; the entry."""
    await session.insert(FILES, {"id": f"file-{name}"}, purpose="assistants", expires_at=expires_at)
    for part in (b"one\x00", b"two"):
        await session.documents.keep_part(f"file-{name}", "content", part)
    await session.insert(VECTOR_STORES, {"id": f"vs_{name}"}, expires_at=expires_at)
    store = {"vector_store_id": f"vs_{name}"}
    await session.insert(FILE_BATCHES, {"id": f"vsfb_{name}", **store}, **store)
    entry = {"id": f"vs_{name}-file-{name}", "file_id": f"file-{name}", "status": "in_progress", **store}
    columns = {**store, "file_id": f"file-{name}", "batch_id": f"vsfb_{name}", "status": "in_progress"}
    await session.insert(VECTOR_STORE_FILES, entry, **columns)
    for number in range(2):
        await session.documents.keep_block(entry, bytes([number, 0]), [f"text {number} 🦙"])
    return entry


async def count(store: ObjectStore, owner: str | None, collection: Collection) -> int:
    async with store.reading(owner) as session:
        return len(await session.newest(collection, 100))


async def test_files_and_vector_stores_are_found(stores: Stores) -> None:
    store = stores()
    async with store.writing("a") as session:
        entry = await fill(session, "a", None)
        await fill(session, "b", None)
    async with store.reading("a") as session:
        rows = session.documents
        first = await rows.next_part("file-a", "content", 0)
        assert first is not None
        second = await rows.next_part("file-a", "content", first.seq)
        assert second is not None
        assert (first.data, second.data) == (b"one\x00", b"two")
        assert await rows.next_part("file-a", "content", second.seq) is None
        assert (await rows.files_of(["file-a", "file-x"])).keys() == {"file-a"}
        assert await rows.files_in("vs_a", ["file-a", "file-b"]) == ["file-a"]
        assert await rows.status_counts("batch_id", ["vsfb_a"]) == {"vsfb_a": {"in_progress": 1}}
        assert (await rows.vector_bytes(["vs_a", "vs_x"])).keys() == {"vs_a"}
        assert [each["id"] for each in await rows.entries_of("vs_a", "in_progress")] == [entry["id"]]
        [waiting] = await rows.waiting_entries()
        assert await rows.entry_at(waiting.seq) == entry
        assert await rows.next_blocks("vs_a", 0, 10, None) == []  # it is not ready
    async with store.writing("a") as session:
        done = {**(await session.get(VECTOR_STORE_FILES, entry["id"])), "status": "completed"}
        await session.replace(VECTOR_STORE_FILES, done, status="completed")
        await session.documents.cancel_entries("vsfb_b")
    async with store.reading("a") as session:
        rows = session.documents
        blocks = await rows.next_blocks("vs_a", 0, 10, [entry["id"]])
        assert [block.vectors for block in blocks] == [b"\x00\x00", b"\x01\x00"]
        [(found, texts)] = (await rows.block_texts([blocks[1].seq])).values()
        assert (found, texts) == (done, ["text 1 🦙"])
        assert await rows.next_blocks("vs_b", 0, 10, None) == []
    async with store.writing("a") as session:
        for collection, name in ((FILES, "file-a"), (FILES, "file-b")):
            await session.delete(collection, name)
    assert await count(store, "a", VECTOR_STORE_FILES) == 0


async def test_what_has_expired_is_deleted_whoever_has_it(stores: Stores) -> None:
    store = stores()
    for owner in ("a", "b", "c"):
        async with store.writing(owner) as session:
            await fill(session, owner, 100 if owner != "c" else 200)
            await session.insert(SESSIONS, {"id": f"session-{owner}"}, expires_at=100)
            await session.insert(EXCHANGES, {"id": f"exchange_{owner}"}, session_id=f"session-{owner}")
    async with store.reading("c") as session:
        before = await session.used_bytes()

    await drop_everyones(store, 99)
    assert await count(store, "a", FILES) == 1
    await drop_expired(store, "a", 100)
    assert [await count(store, owner, FILES) for owner in "abc"] == [0, 1, 1]
    await drop_everyones(store, 100)
    assert [await count(store, owner, FILES) for owner in "abc"] == [0, 0, 1]
    assert [await count(store, owner, EXCHANGES) for owner in "abc"] == [0, 0, 0]
    assert [await count(store, owner, VECTOR_STORES) for owner in "abc"] == [1, 1, 1]
    assert [await count(store, owner, VECTOR_STORE_FILES) for owner in "abc"] == [0, 0, 1]
    async with store.reading("c") as session:
        assert 0 < await session.used_bytes() < before
        assert not await session.has_expired(100)

    async with store.writing("a") as session:
        await session.delete(VECTOR_STORES, "vs_a")
    async with store.reading("a") as session:
        assert await session.used_bytes() == 0


async def test_the_newest_stay(stores: Stores) -> None:
    store = stores()
    async with store.writing("a") as session:
        for name in "ab":
            await session.insert(SESSIONS, {"id": name}, expires_at=1)
            rows = (({"id": f"{name}{n}", "text": "x" * 100}, {"session_id": name}) for n in range(5))
            await session.insert_all(EXCHANGES, rows)
        assert await session.beyond(SESSIONS, 1, 10) == ["a"]
        await session.keep_newest(EXCHANGES, 4, 10**6, session_id="a")
        left = await session.newest(EXCHANGES, 9, session_id="a")
        assert [row.id for row in left] == ["a4", "a3", "a2", "a1"]
        await session.delete_up_to(EXCHANGES, left[2].seq, session_id="a")
        await session.keep_newest(EXCHANGES, 4, 500, session_id="a")
        assert [row.id for row in await session.newest(EXCHANGES, 9, session_id="a")] == ["a4"]
        assert len(await session.newest(EXCHANGES, 9, session_id="b")) == 5
    async with store.writing("a") as session:
        for name in "ab":
            await session.delete(SESSIONS, name)
    async with store.reading("a") as session:
        assert await session.used_bytes() == 0
