"""ResponseStore: responses that were asked to be kept, so that they can be read again and followed up.

In memory only, and bounded by number, bytes and age: what was used least recently goes first. Each response counts with
the whole conversation before it, so one that can be read can be followed up too. Nobody finds what is another's, because
clients choose ids of items themselves. Used on the event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import orjson

from kolosal.config.responses import ResponseSettings
from kolosal.errors import NotFound
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import Item, items_bytes

_MAX_QUOTED_CHARS = 100
"""Characters of an id that an error message repeats."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response and the conversation it belongs to."""

    response: ResponseObject
    """Never changed."""
    earlier: tuple[Item, ...]
    """The conversation before this request."""
    input_items: tuple[Item, ...]
    """What this request added."""
    output: tuple[Item, ...]

    @property
    def id(self) -> str:
        """The id of the response."""
        return self.response["id"]

    @property
    def conversation(self) -> tuple[Item, ...]:
        """What a follow-up continues. The instructions are no part of it."""
        return self.earlier + self.input_items + self.output

    def size_bytes(self) -> int:
        """What it takes, as JSON."""
        return len(orjson.dumps(self.response)) + items_bytes(self.earlier + self.input_items)


class RunningResponse(Protocol):
    """A response that is being generated."""

    def snapshot(self) -> StoredResponse:
        """What there is of it."""

    def cancel(self) -> None:
        """Stop it; it is kept as it is then. Idempotent."""


_Key: TypeAlias = tuple[str | None, str]
"""The API key whose it is, None where no keys are used, and its id."""


@dataclass(slots=True)
class _Kept:
    stored: StoredResponse
    size_bytes: int
    expires_at: float


class ResponseStore:
    """Kept responses by id, and those that run. `clock` gives seconds and never goes back."""

    def __init__(self, limits: ResponseSettings, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._by_use: OrderedDict[_Key, _Kept] = OrderedDict()
        self._by_age: OrderedDict[_Key, _Kept] = OrderedDict()
        self._items: dict[_Key, Item] = {}
        self._running: dict[_Key, RunningResponse] = {}
        self.size_bytes = 0
        """What all kept responses take together."""

    def __len__(self) -> int:
        return len(self._by_use)

    def start(self, owner: str | None, response_id: str, running: RunningResponse) -> None:
        """Note a response that begins, so that other requests can read and cancel it."""
        self._running[owner, response_id] = running

    def put(self, owner: str | None, stored: StoredResponse) -> None:
        """Keep a response that has ended. One that is larger than the whole store is not kept."""
        key = (owner, stored.id)
        self._running.pop(key, None)
        self._drop_expired()
        size = stored.size_bytes()
        if size > self._limits.max_bytes or self._limits.max_count == 0:
            return
        kept = _Kept(stored, size, self._clock() + self._limits.ttl_s)
        self._by_use[key] = self._by_age[key] = kept
        self.size_bytes += size
        for item in (*stored.input_items, *stored.output):
            self._items.setdefault((owner, item["id"]), item)  # the first wins: an item never changes
        while len(self._by_use) > self._limits.max_count or self.size_bytes > self._limits.max_bytes:
            self._drop(next(iter(self._by_use)))

    def get(self, owner: str | None, response_id: str) -> StoredResponse:
        """A kept response, or what there is of a running one.

        Raises:
            NotFound: there is no such response (any more).
        """
        key = (owner, response_id)
        running = self._running.get(key)
        if running is not None:
            return running.snapshot()
        self._drop_expired()
        kept = self._by_use.get(key)
        if kept is None:
            raise NotFound(
                f"Response with id '{response_id[:_MAX_QUOTED_CHARS]}' not found",
                param="response_id",
                code="response_not_found",
            )
        self._by_use.move_to_end(key)
        return kept.stored

    def running(self, owner: str | None, response_id: str) -> RunningResponse | None:
        """A response that is being generated."""
        return self._running.get((owner, response_id))

    def item(self, owner: str | None, item_id: str) -> Item | None:
        """An item of any kept response."""
        self._drop_expired()
        return self._items.get((owner, item_id))

    def delete(self, owner: str | None, response_id: str) -> None:
        """Forget a response; one that runs is cancelled.

        Raises:
            NotFound: there is no such response (any more).
        """
        running = self._running.get((owner, response_id))
        if running is not None:
            running.cancel()
        else:
            self.get(owner, response_id)
        self._drop((owner, response_id))

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._by_age:
            key, oldest = next(iter(self._by_age.items()))
            if oldest.expires_at > now:
                return
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        kept = self._by_use.pop(key, None)
        if kept is None:
            return
        del self._by_age[key]
        self.size_bytes -= kept.size_bytes
        for item in (*kept.stored.input_items, *kept.stored.output):
            if self._items.get((key[0], item["id"])) is item:
                del self._items[key[0], item["id"]]
