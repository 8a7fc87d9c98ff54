"""KeptResponses: what is kept, for how long, and what goes first, whatever the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kolosal.config.responses import ResponseSettings
from kolosal.errors import NotFound
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import Item, MessageItem
from kolosal.routes.openai.responses.kept import EarlierTurns, KeptResponses, StoredResponse
from kolosal.store.store import ObjectStore
from tests.settings import settings_of
from tests.store.conftest import postgres_url, store_url, stores
from tests.store.databases import empty_database

__all__ = ["postgres_url", "store_url", "stores"]

Stores = Callable[..., ObjectStore]
MIB = 1024 * 1024


def message(item_id: str, text: str = "a") -> MessageItem:
    return {
        "id": item_id, "type": "message", "role": "user", "status": "completed",
        "content": [{"type": "input_text", "text": text}],
    }  # fmt: skip


class Keeper:
    """Keeps small responses of one key."""

    def __init__(self, store: ObjectStore, owner: str | None = None, **limits: float) -> None:
        self.now, self.store, self.owner = 0.0, store, owner
        wide = {"max_count": 100, "max_bytes": MIB, "ttl_s": 60.0}
        self.kept = KeptResponses(store, ResponseSettings.model_validate(wide | limits), lambda: self.now)

    async def keep(
        self, name: str, *, after: str | None = None, text: str = "a", item: str | None = None
    ) -> bool:
        """A response with one item before it and one of its own, which follows another one."""
        earlier = EarlierTurns() if after is None else await self.kept.conversation(self.owner, after)
        response = {"id": name, "status": "completed", "output": [message(f"out_{name}")]}
        stored = StoredResponse(cast("ResponseObject", response), (message(item or f"in_{name}", text),))
        return await self.kept.keep(self.owner, stored, earlier, asked=True)

    async def has(self, name: str) -> bool:
        try:
            return (await self.kept.show(self.owner, name)).response["id"] == name
        except NotFound:
            return False

    async def those(self, names: str) -> str:
        """Those of these that are kept."""
        return "".join([name for name in names if await self.has(name)])

    async def conversation(self, name: str) -> list[str]:
        return [item["id"] for item in (await self.kept.conversation(self.owner, name)).items]

    async def item(self, item_id: str) -> Item | None:
        return (await self.kept.items(self.owner, [item_id])).get(item_id)

    async def bytes(self) -> int:
        """What is counted for the key, which is what its responses take."""
        async with self.store.reading(self.owner) as session:
            _, size, used = await session.responses.usage()
        assert size == used
        return used


async def test_what_is_kept_is_there_after_a_restart(stores: Stores) -> None:
    store = stores()
    keeper = Keeper(store)
    await keeper.keep("a")
    await keeper.keep("b", after="a")
    shown = await keeper.kept.show(None, "b")
    await store.close()

    keeper = Keeper(stores())
    assert await keeper.kept.show(None, "b") == shown
    assert await keeper.conversation("b") == ["in_a", "out_a", "in_b", "out_b"]
    assert await keeper.item("out_a") == message("out_a")
    assert await keeper.item("out_\x00") is None


async def test_what_was_followed_up_least_recently_goes_first(stores: Stores) -> None:
    keeper = Keeper(stores(), max_count=3)
    for name in "abc":
        await keeper.keep(name)
    await keeper.keep("d", after="a")
    assert await keeper.those("abcd") == "acd"
    assert await keeper.item("in_b") is None
    await keeper.keep("e")
    await keeper.keep("f", after="d")
    assert await keeper.those("abcdef") == "def"
    assert await keeper.conversation("f") == ["in_a", "out_a", "in_d", "out_d", "in_f", "out_f"]


async def test_no_key_pushes_out_what_another_has_or_finds_it(stores: Stores) -> None:
    """Clients choose ids of items themselves, and some choose the same ones."""
    store = stores()
    one, other = Keeper(store, "key_1", max_count=2), Keeper(store, "key_2", max_count=2)
    await one.keep("a", item="same", text="mine")
    for name in "bcd":
        await other.keep(name, item="same", text="yours")
    assert (await one.those("abcd"), await other.those("abcd")) == ("a", "cd")
    assert await one.item("same") == message("same", "mine")
    assert await other.item("same") == message("same", "yours")
    with pytest.raises(NotFound):
        await other.kept.delete("key_2", "a")
    with pytest.raises(NotFound):
        await other.kept.conversation("key_2", "a")


async def test_bytes_are_bounded_and_what_is_larger_than_all_is_not_kept(stores: Stores) -> None:
    keeper = Keeper(stores(store_max_bytes_per_key=6000))
    for name in "abc":
        assert await keeper.keep(name, text="x" * 1500)
    assert await keeper.those("abc") == "bc"
    assert not await keeper.keep("d", text="x" * 6000)
    assert await keeper.those("bcd") == "bc"
    assert not await keeper.keep("e", after="c", text="x" * 3500)  # with the conversation before it
    assert await keeper.those("bce") == "bc"
    assert 0 < await keeper.bytes() <= 6000


async def test_a_response_is_forgotten_after_its_time_however_often_it_is_read(stores: Stores) -> None:
    keeper = Keeper(stores())
    await keeper.keep("a")
    keeper.now = 59
    await keeper.keep("b", after="a")
    keeper.now = 60
    assert await keeper.those("ab") == "b"
    assert await keeper.item("out_a") is None
    assert await keeper.conversation("b") == ["in_a", "out_a", "in_b", "out_b"]


async def test_the_conversation_of_a_response_that_was_deleted_goes_on(stores: Stores) -> None:
    keeper = Keeper(stores())
    await keeper.keep("a")
    earlier = await keeper.kept.conversation(None, "a")
    await keeper.keep("b", after="a")
    await keeper.kept.delete(None, "a")
    with pytest.raises(NotFound, match="'a' not found"):
        await keeper.kept.delete(None, "a")
    assert await keeper.conversation("b") == ["in_a", "out_a", "in_b", "out_b"]
    await keeper.kept.delete(None, "b")
    assert await keeper.bytes() == 0

    response = cast("ResponseObject", {"id": "c", "status": "completed", "output": []})
    stored = StoredResponse(response, (message("in_c"),))
    assert await keeper.kept.keep(
        None, stored, earlier, asked=True
    )  # its request came before all was deleted
    assert await keeper.conversation("c") == ["in_a", "out_a", "in_c"]


async def test_nobody_can_put_words_in_an_item_that_is_there(stores: Stores) -> None:
    keeper = Keeper(stores())
    await keeper.keep("a", item="same", text="first")
    await keeper.keep("b", item="same", text="forged")
    assert await keeper.item("same") == message("same", "first")


async def test_a_store_for_none_keeps_none(stores: Stores) -> None:
    keeper = Keeper(stores(), max_count=0)
    assert not await keeper.keep("a")
    assert not await keeper.has("a")


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(["keep", "follow", "delete", "wait"]), st.integers(0, 5)), max_size=25)
)
def test_any_order_of_uses_keeps_the_bounds_and_the_books(uses: list[tuple[str, int]]) -> None:
    """Beside a model of it: each response with its whole conversation, the least recently used one first."""

    async def walk(url: str) -> None:
        store = ObjectStore(settings_of(store_url=url).store)
        keeper = Keeper(store, max_count=3, ttl_s=10.0)
        model: dict[str, tuple[list[str], float]] = {}
        for number, (use, which) in enumerate(uses):
            name, there = f"r{number}", [*model]
            chosen = there[which % len(there)] if there else None
            if use == "delete" and chosen is not None:
                await keeper.kept.delete(None, chosen)
                del model[chosen]
            elif use == "wait":
                keeper.now += which
                async with store.writing(None) as session:
                    await session.responses.drop_expired(int(keeper.now), 100)
            elif use in ("keep", "follow"):
                after = chosen if use == "follow" else None
                earlier: list[str] = []
                if after is not None:
                    earlier, since = model.pop(after)
                    model[after] = earlier, since
                await keeper.keep(name, after=after)
                model[name] = [*earlier, f"in_{name}", f"out_{name}"], keeper.now
            model = dict([each for each in model.items() if each[1][1] + 10 > keeper.now][-3:])
            assert {each: await keeper.conversation(each) for each in model} == {
                each: items for each, (items, _) in model.items()
            }
            async with store.reading(None) as session:
                assert (await session.responses.usage())[0] == len(model)
        await keeper.bytes()
        for name in model:
            await keeper.kept.delete(None, name)
        assert await keeper.bytes() == 0
        await store.close()

    with empty_database() as url:
        asyncio.run(walk(url))
