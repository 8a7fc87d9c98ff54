"""Ring: the last items of something endless, and readers that follow it.

A reader is a position and nothing else, so that a slow one costs no memory: it loses the oldest items and is told how
many. Items are numbered from 1 on. Used on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

BATCH = 256
"""Items a reader gets at once."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Items that follow each other."""

    items: tuple[T, ...]
    first: int
    """The number of the first item."""
    lost: int = 0
    """How many items before the first one were dropped before this reader came to them."""

    @property
    def last(self) -> int:
        """The number of the last item; one less than `first` when there are none."""
        return self.first + len(self.items) - 1


class Ring(Generic[T]):
    """At most `max_count` items with at most `max_size` together, whatever `size_of` counts."""

    def __init__(
        self, max_count: int, max_size: int | None = None, size_of: Callable[[T], int] = lambda _: 0
    ) -> None:
        self._items: deque[T] = deque()
        self._max_count = max_count
        self._max_size = max_size
        self._size_of = size_of
        self._size = 0
        self.newest = 0
        """The number of the last item; 0 when there never was one."""
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def oldest(self) -> int:
        """The number of the first item that is still kept; one more than `newest` when there is none."""
        return self.newest - len(self._items) + 1

    def append(self, item: T) -> None:
        """Add an item, and drop the oldest where there are too many."""
        self._items.append(item)
        self._size += self._size_of(item)
        self.newest += 1
        self._drop()
        self._wake()

    def _drop(self) -> None:
        while len(self._items) > self._max_count or (
            self._max_size is not None and self._size > self._max_size and len(self._items) > 1
        ):
            self._size -= self._size_of(self._items.popleft())

    def after(self, number: int, limit: int = BATCH) -> Batch[T]:
        """The items that follow the one of that number, `limit` of them at most."""
        start = max(number + 1, self.oldest)
        skipped = start - self.oldest
        return Batch(tuple(islice(self._items, skipped, skipped + limit)), start, start - number - 1)

    def last(self, count: int) -> Batch[T]:
        """The last items, `count` of them at most."""
        return self.after(max(self.oldest - 1, self.newest - count), count)

    def newest_first(self, before: int | None = None) -> Iterator[tuple[int, T]]:
        """Items with their numbers, from the newest on, or from the one before that number."""
        newest = self.newest if before is None else min(self.newest, before - 1)
        numbers = range(newest, self.oldest - 1, -1)
        return zip(numbers, islice(reversed(self._items), self.newest - newest, None), strict=False)

    def resize(self, max_count: int) -> None:
        """Keep so many items from now on."""
        self._max_count = max_count
        self._drop()

    async def follow(self, after: int, pause_s: float = 0.0) -> AsyncGenerator[Batch[T], None]:
        """All that comes after the item of that number, in batches, until the ring is closed.

        `pause_s`: between batches, so that a reader of much that is small costs little.
        """
        while True:
            batch = self.after(after)
            if batch.items:
                after = batch.last
                yield batch
                if pause_s and not self._closed:
                    await asyncio.sleep(pause_s)
            elif self._closed:
                return
            else:
                await self._changed.wait()

    def close(self) -> None:
        """Let the readers end once they have read everything. Idempotent."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
