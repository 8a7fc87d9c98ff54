"""What the template of a model file may cost: processor time, and bytes that it makes.

Time is looked at between pieces of work, so every piece must be small: whoever does one asks first whether its input and
its result are affordable. Nothing here knows Jinja.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, TypeVar

MAX_CPU_S: Final = 1.5
"""Processor time of compiling a template, and of all renderings for one request. Largest of the field: some milliseconds."""

MAX_MADE_BYTES: Final = 128 * 1024 * 1024
"""Bytes of all that is made meanwhile, whether it is kept or not: no count of what is kept could be as cheap."""

MAX_NUMBER_BITS: Final = 16 * 1024
"""Work on long numbers grows faster than they do."""

_GROWTH: Final = 8
"""Escapes, JSON, capitals and copies make at most this many bytes of a character; what makes more is asked for by itself."""

MAX_CHAR_BYTES: Final = 4
"""Bytes that a character takes at most."""

ITEM_BYTES: Final = 64
"""What an item of a list counts beside its own characters."""

_WIDENING: Final = 5
"""Written as code, ten signs stand for a character; beside a wide one each takes four bytes: so many times as much."""

_WORK_PER_LOOK: Final = 64
"""Pieces of work after which the clock is looked at: well below a millisecond for ordinary ones."""

_PIECE_BYTES: Final = 16 * 1024
"""Bytes that are read or written in one piece of work."""

_TOO_MUCH = f"it makes or reads more than {MAX_MADE_BYTES >> 20} MiB"
_TOO_LONG = "a number is too long"

_AT_ONCE = (bool, float, type(None))
"""Types whose values are always cheap."""

_SERIES: Final[tuple[type[Collection[Any]], ...]] = (
    list,
    tuple,
    set,
    frozenset,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)

_T = TypeVar("_T")


class OverBudget(Exception):
    """More than a template may cost."""


class Budget:
    """Counts what one thing costs after the other. Belongs to one thread, whose processor time it looks at."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """`clock`: processor seconds of this thread."""
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        self._began_s = self._clock()
        self._left = MAX_MADE_BYTES
        self._unseen = 0

    def is_low(self) -> bool:
        """Whether half of the bytes or more are spent."""
        return self._left <= MAX_MADE_BYTES // 2

    def spend(self, n_bytes: int = 0) -> None:
        """A piece of work was done, or is about to be, that makes so many bytes.

        Raises:
            OverBudget: that is too much, or took too long.
        """
        self._left -= n_bytes
        self._unseen += 1 + n_bytes // _PIECE_BYTES
        if self._unseen > _WORK_PER_LOOK or self._left < 0:
            self._look()

    def afford(self, n_bytes: int) -> None:
        """Ask before making something as large as this; it is not spent.

        Raises:
            OverBudget: it is too large.
        """
        if n_bytes > self._left:
            raise OverBudget(_TOO_MUCH)

    def made(self, value: _T) -> _T:
        """Spend the size of what was made.

        Raises:
            OverBudget: that is too much.
        """
        if isinstance(value, int):
            self._check(value)
        self.spend(sys.getsizeof(value))
        return value

    def weigh(self, value: object) -> int:
        """What may come of a value that is about to be read to its end: written, compared, sorted; in bytes.

        A list can hold another one many times, which can hold another one many times: what is small in memory may be
        endless to read.

        Raises:
            OverBudget: it is too long for that.
        """
        if isinstance(value, str):
            weight = len(value)
        elif isinstance(value, _AT_ONCE):
            return 0
        elif isinstance(value, int):
            self._check(value)
            return 0
        else:
            weight = _weight(value, self._left // _GROWTH)
        if weight > _PIECE_BYTES:
            self._unseen += weight // _PIECE_BYTES
        self.afford(weight * _GROWTH)
        return weight * _GROWTH

    def weighed(self, value: _T) -> _T:
        """The value itself, after `weigh`."""
        if not isinstance(value, str) or len(value) > _PIECE_BYTES:
            self.weigh(value)
        return value

    def written(self, value: _T) -> _T:
        """The value itself, which is put out: its text is spent, as wide as it may become beside other text."""
        self.spend(MAX_CHAR_BYTES * len(value) if isinstance(value, str) else self.weigh(value))
        return value

    def metered(self, items: Iterable[_T], n_bytes: int = 0) -> Iterator[_T]:
        """Items, each of which is a piece of work that makes so many bytes.

        Raises:
            OverBudget: that is too much, or took too long.
        """
        for item in items:
            self.spend(n_bytes)
            yield item

    def listed(self, items: Iterable[_T]) -> list[_T]:
        """All that an iterator gives.

        Raises:
            OverBudget: it gives too much.
        """
        found = []
        for item in items:
            self.spend(ITEM_BYTES)
            found.append(item)
        return found

    def _check(self, number: int) -> None:
        if number.bit_length() > MAX_NUMBER_BITS:
            raise OverBudget(_TOO_LONG)

    def _look(self) -> None:
        self._unseen = 0
        if self._left < 0:
            raise OverBudget(_TOO_MUCH)
        if self._clock() - self._began_s > MAX_CPU_S:
            raise OverBudget(f"it takes more than {MAX_CPU_S} s of processor time")


def _weight(value: Any, most: int) -> int:
    """Characters and items of a value, however often it holds them; counting ends beyond `most`."""
    weight, n_chars, is_wide = 0, 0, False
    pending: list[Any] = [value]
    while pending and weight + n_chars <= most:
        item = pending.pop()
        weight += ITEM_BYTES
        if isinstance(item, str):
            n_chars += len(item)
            is_wide = is_wide or not item.isascii()
        elif isinstance(item, dict):
            weight += 2 * ITEM_BYTES * len(item)
            if weight <= most:
                pending += item
                pending += item.values()
        elif isinstance(item, _SERIES):
            weight += ITEM_BYTES * len(item)
            if weight <= most:
                pending += item
        elif isinstance(item, int):
            n_bits = item.bit_length()
            if n_bits > MAX_NUMBER_BITS:
                raise OverBudget(_TOO_LONG)
            n_chars += n_bits // 3  # at least its digits
    return weight + (n_chars * _WIDENING if is_wide else n_chars)
