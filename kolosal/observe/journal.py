"""Journal: a ring whose items have ids, by which a reader that was cut off goes on where it was.

Ids begin with a mark of the daemon's run, so that those of an earlier run are not taken for ours.
"""

from __future__ import annotations

import secrets
from typing import Generic, TypeVar

from kolosal.observe.ring import Ring

T = TypeVar("T")


class Journal(Generic[T]):
    """Used on the event loop only."""

    def __init__(self, max_items: int) -> None:
        self._run = secrets.token_hex(4)
        self.ring: Ring[T] = Ring(max_items)

    def id_of(self, number: int) -> str:
        """The id of the item of that number."""
        return f"{self._run}-{number}"

    def after_id(self, item_id: str) -> int | None:
        """The number of the item of that id; None where it is of another run, or none of ours."""
        run, _, number = item_id.rpartition("-")
        if run != self._run or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return min(int(number), self.ring.newest)

    def close(self) -> None:
        """Let the readers end."""
        self.ring.close()
