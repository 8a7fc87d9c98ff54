"""What is kept is there for its owner, whole or not at all, whatever the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.errors import InvalidRequest, NotFound, StoreUnavailable
from kolosal.store.collections import ASSISTANTS, MESSAGES, RUNS, STEPS, THREADS
from kolosal.store.database import Database
from kolosal.store.pages import PageRange
from kolosal.store.session import OBJECT_BYTES
from kolosal.store.store import ObjectStore
from tests.fakes import eventually
from tests.settings import settings_of

Stores = Callable[..., ObjectStore]


async def test_what_was_kept_is_there_after_a_restart(stores: Stores) -> None:
    first = stores()
    async with first.writing(None) as session:
        await session.insert(ASSISTANTS, {"id": "asst_1", "name": "Ähm\u0000 🦙"})
    await first.close()

    async with stores().reading(None) as session:
        assert await session.get(ASSISTANTS, "asst_1") == {"id": "asst_1", "name": "Ähm\u0000 🦙"}


async def test_nobody_finds_what_is_anothers(stores: Stores) -> None:
    store = stores()
    async with store.writing("a") as session:
        await session.insert(ASSISTANTS, {"id": "asst_1"})

    for owner in ("b", None):
        async with store.writing(owner) as session:
            with pytest.raises(NotFound, match=r"^No assistant found with id 'asst_1'\.$"):
                await session.get(ASSISTANTS, "asst_1")
            with pytest.raises(NotFound):
                await session.delete(ASSISTANTS, "asst_1")
            assert not (await session.page(ASSISTANTS, PageRange())).rows
            with pytest.raises(InvalidRequest, match="after must be the id of an object of this list"):
                await session.page(ASSISTANTS, PageRange(after="asst_1"))


@pytest.mark.parametrize("object_id", ["", "asst_\x00", "ü" * 10, "x" * 10_000, "asst_1' OR 1=1 --"])
async def test_what_can_be_no_id_is_not_found(stores: Stores, object_id: str) -> None:
    async with stores().reading(None) as session:
        with pytest.raises(NotFound) as caught:
            await session.get(ASSISTANTS, object_id)
    assert len(caught.value.message) < 150


async def test_a_transaction_that_fails_leaves_nothing(stores: Stores) -> None:
    store = stores()

    async def fails() -> None:
        async with store.writing(None) as session:
            await session.insert(ASSISTANTS, {"id": "asst_1"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()

    async with store.reading(None) as session:
        assert await session.find(ASSISTANTS, "asst_1") is None
        assert await session.used_bytes() == 0


async def test_deleting_a_thread_deletes_what_is_part_of_it_and_gives_its_bytes_back(stores: Stores) -> None:
    store = stores()
    async with store.writing(None) as session:
        for thread in ("thread_1", "thread_2"):
            await session.insert(THREADS, {"id": thread})
            await session.insert(MESSAGES, {"id": f"msg_{thread}", "text": "x" * 100}, thread_id=thread)
            await session.insert(RUNS, {"id": f"run_{thread}"}, thread_id=thread, status="queued")
            await session.insert(
                STEPS, {"id": f"step_{thread}"}, thread_id=thread, run_id=f"run_{thread}", type="tool_calls"
            )
    async with store.reading(None) as session:
        both = await session.used_bytes()

    async with store.writing(None) as session:
        await session.delete(THREADS, "thread_1")

    async with store.reading(None) as session:
        assert await session.used_bytes() == both / 2 > 4 * OBJECT_BYTES
        for collection in (MESSAGES, RUNS, STEPS):
            left = await session.page(collection, PageRange())
            assert [row.id.endswith("thread_2") for row in left.rows] == [True]


async def test_a_key_has_so_many_bytes_and_no_more(stores: Stores) -> None:
    store = stores(store_max_bytes_per_key=2000)
    for owner in ("a", "b"):  # what one has leaves the other its own
        async with store.writing(owner) as session:
            await session.insert(ASSISTANTS, {"id": f"asst_{owner}", "text": "x" * 1000})

    async def grow() -> None:
        async with store.writing("a") as session:
            await session.get(ASSISTANTS, "asst_a")
            await session.replace(ASSISTANTS, {"id": "asst_a", "text": "x" * 2000})

    with pytest.raises(InvalidRequest, match="2000 are allowed") as caught:
        await grow()
    assert caught.value.code == "storage_limit_exceeded"

    async with store.writing("a") as session:
        await session.delete(ASSISTANTS, "asst_a")
        await session.insert(ASSISTANTS, {"id": "asst_a2", "text": "x" * 1500})
        assert await session.find(ASSISTANTS, "asst_a") is None


async def test_one_daemon_at_a_time_has_a_database(stores: Stores) -> None:
    first, second = stores(), stores()
    async with first.reading(None):
        pass
    with pytest.raises(StoreUnavailable, match="another daemon has its database"):
        async with second.reading(None):
            pass
    await first.close()
    async with second.reading(None) as session:
        assert await session.used_bytes() == 0


@given(total=st.integers(0, 12), limit=st.integers(1, 5), ascending=st.booleans(), backwards=st.booleans())
def test_pages_put_together_are_the_list(
    tmp_path_factory: pytest.TempPathFactory, total: int, limit: int, *, ascending: bool, backwards: bool
) -> None:
    folder = tmp_path_factory.mktemp("pages")

    async def walk() -> None:
        store = ObjectStore(settings_of(store_url=f"sqlite:///{folder / 'kolosal.db'}").store)
        ids = [f"asst_{index}" for index in range(total)]
        async with store.writing(None) as session:
            await session.insert_all(ASSISTANTS, [({"id": each}, {}) for each in ids])
        expected = ids if ascending else ids[::-1]
        found: list[str] = []
        at: str | None = None
        async with store.reading(None) as session:
            while True:
                part = PageRange(limit, "asc" if ascending else "desc", after=at)
                if backwards and found:
                    part = PageRange(limit, part.order, before=found[0])
                elif backwards and expected:
                    part = PageRange(limit, part.order, before=expected[-1])
                page = await session.page(ASSISTANTS, part)
                new = [row.id for row in page.rows]
                found = new + found if backwards else found + new
                at = found[-1] if found else None
                assert len(new) <= limit
                if not page.has_more:
                    break
        await store.close()
        assert found == (expected[:-1] if backwards else expected)

    asyncio.run(walk())


async def test_what_is_no_database_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "kolosal.db"
    path.write_bytes(b"this is no database" * 100)
    store = ObjectStore(settings_of(store_url=f"sqlite:///{path}").store)
    with pytest.raises(StoreUnavailable, match="its database is damaged"):
        async with store.reading(None):
            pass
    assert path.read_bytes() == b"this is no database" * 100


async def test_a_database_that_cannot_be_reached_is_told_without_its_address() -> None:
    store = ObjectStore(settings_of(store_url="postgresql://user:password@127.0.0.1:1/none").store)
    with pytest.raises(StoreUnavailable) as caught:
        async with store.reading(None):
            pass
    assert "127.0.0.1" not in caught.value.message
    assert "password" not in caught.value.message


async def test_those_who_wait_for_a_database_share_its_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempts, goes_on = 0, asyncio.Event()

    async def fails(*_: object) -> None:
        nonlocal attempts
        attempts += 1
        await goes_on.wait()
        raise StoreUnavailable("no such luck")

    monkeypatch.setattr(Database, "open", fails)
    store = ObjectStore(settings_of(store_url=f"sqlite:///{tmp_path / 'kolosal.db'}").store)
    waiting = [asyncio.create_task(store.open()) for _ in range(5)]
    await eventually(lambda: attempts > 0)
    goes_on.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(each) for each in results] == ["no such luck"] * 5
    assert attempts == 1
    await store.close()
