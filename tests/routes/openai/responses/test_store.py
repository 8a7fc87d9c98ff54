"""ResponseStore: what is kept, for how long, and what goes first."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kolosal.config.responses import ResponseSettings
from kolosal.errors import NotFound
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import Item, MessageItem
from kolosal.routes.openai.responses.store import ResponseStore, StoredResponse


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def message(item_id: str, text: str = "a") -> MessageItem:
    return {
        "id": item_id,
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": text}],
    }


def response(name: str) -> ResponseObject:
    """A small one, with what the store reads of it."""
    return cast("ResponseObject", {"id": name, "status": "completed"})


def stored(name: str, *, earlier: tuple[Item, ...] = (), text: str = "a") -> StoredResponse:
    return StoredResponse(response(name), earlier, (message(f"in_{name}", text),), (message(f"out_{name}"),))


def store_of(count: int = 10, max_bytes: int = 100_000, ttl_s: float = 60) -> tuple[ResponseStore, Clock]:
    clock = Clock()
    return ResponseStore(ResponseSettings(max_count=count, max_bytes=max_bytes, ttl_s=ttl_s), clock), clock


def has(store: ResponseStore, name: str) -> bool:
    try:
        return store.get("", name).id == name
    except NotFound:
        return False


def test_a_kept_response_is_given_back_with_its_conversation() -> None:
    store, _ = store_of()
    first = stored("a")
    store.put("", first)
    store.put("", stored("b", earlier=(message("x"),)))
    assert store.get("", "a") is first
    assert [item["id"] for item in store.get("", "b").conversation] == ["x", "in_b", "out_b"]
    assert store.item("", "out_a") is first.output[0]
    assert store.item("", "nobody") is None


def test_the_least_recently_used_goes_first() -> None:
    store, _ = store_of(count=2)
    store.put("", stored("a"))
    store.put("", stored("b"))
    store.get("", "a")
    store.put("", stored("c"))
    assert [has(store, name) for name in "abc"] == [True, False, True]
    assert store.item("", "in_b") is None


def test_bytes_are_bounded_and_what_is_larger_than_all_is_not_kept() -> None:
    store, _ = store_of(max_bytes=2000)
    for name in "abc":
        store.put("", stored(name, text="x" * 700))
    assert [has(store, name) for name in "abc"] == [False, True, True]
    store.put("", stored("d", text="x" * 5000))
    assert [has(store, name) for name in "bcd"] == [True, True, False]
    assert store.size_bytes <= 2000


def test_a_response_is_forgotten_after_its_time_however_often_it_is_read() -> None:
    store, clock = store_of(ttl_s=60)
    store.put("", stored("a"))
    clock.now = 59
    assert has(store, "a")
    store.put("", stored("b"))
    clock.now = 60
    assert [has(store, name) for name in "ab"] == [False, True]
    assert store.item("", "out_a") is None


def test_a_deleted_response_is_gone_and_its_conversation_goes_on() -> None:
    store, _ = store_of()
    store.put("", stored("a"))
    store.put("", stored("b", earlier=store.get("", "a").conversation))
    store.delete("", "a")
    assert not has(store, "a")
    assert len(store.get("", "b").conversation) == 4
    with pytest.raises(NotFound, match="'a' not found"):
        store.delete("", "a")


def test_nobody_can_put_words_in_the_item_of_another() -> None:
    store, _ = store_of()
    store.put("", stored("a"))
    own = store.item("", "out_a")
    forged = StoredResponse(response("b"), (), (message("out_a", "forged"),), ())
    store.put("", forged)
    assert store.item("", "out_a") is own
    store.delete("", "b")
    assert store.item("", "out_a") is own


def test_a_store_for_none_keeps_none() -> None:
    store, _ = store_of(count=0)
    store.put("", stored("a"))
    assert len(store) == 0


class Machine(RuleBasedStateMachine):
    """Any order of uses keeps the bounds and the books."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.clock = store_of(count=3, max_bytes=1500, ttl_s=10)
        self.made = 0

    @rule(size=st.integers(0, 600))
    def put(self, size: int) -> None:
        self.made += 1
        self.store.put("", stored(str(self.made), text="x" * size))

    @rule(name=st.integers(1, 12).map(str))
    def get(self, name: str) -> None:
        has(self.store, name)

    @rule(name=st.integers(1, 12).map(str))
    def delete(self, name: str) -> None:
        if has(self.store, name):
            self.store.delete("", name)

    @rule(seconds=st.integers(1, 8))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def bounded(self) -> None:
        kept = [name for name in map(str, range(1, self.made + 1)) if has(self.store, name)]
        assert len(self.store) == len(kept) <= 3
        assert self.store.size_bytes == sum(self.store.get("", name).size_bytes() for name in kept) <= 1500


TestMachine = Machine.TestCase


def test_nobody_finds_what_is_anothers() -> None:
    """Clients choose ids of items themselves, and some choose the same ones."""
    store, _ = store_of()
    one, other = "key_1", "key_2"
    store.put(one, stored("a", text="mine"))
    assert (store.item(other, "in_a"), has(store, "a")) == (None, False)
    with pytest.raises(NotFound):
        store.delete(other, "a")
    store.put(other, stored("a", text="yours"))
    assert store.item(one, "in_a") == message("in_a", "mine")
    assert store.item(other, "in_a") == message("in_a", "yours")
    store.delete(one, "a")
    assert store.get(other, "a").input_items == (message("in_a", "yours"),)
