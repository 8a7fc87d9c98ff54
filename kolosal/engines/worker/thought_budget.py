"""ThoughtBudget: how long a model may think, told from the tokens of one turn as they come. Pure.

Follows what `chat/parser.py` reads as thoughts. At the bound the tokens that close a thought are to follow, in place of what would
be sampled. Never amid a code point, which would be lost.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

_MOST_WAITED = 3
"""Tokens beyond the bound that the end of a code point is waited for: each has at least one of its bytes."""


class _Where(Enum):
    BEFORE = auto()
    """At the beginning of the turn, or after a thought: what comes may be a thought."""
    INSIDE = auto()
    OVER = auto()
    """The answer has begun, and no thought comes after it."""


class ThoughtBudget:
    """The thoughts of one sequence. `push` takes each of its tokens in order, sampled or not; `forced` is what must come next."""

    def __init__(
        self,
        budget: int,
        tags: tuple[str, str],
        closing: Sequence[int],
        *,
        in_thoughts: bool,
        channels: bool = False,
    ) -> None:
        """`budget`: tokens of all thoughts of the turn together, without their markers; `closing`: the tokens that end one; `in_thoughts`:
        the prompt ends within one; `channels`: a thought may come after any message."""
        self._budget = budget
        self._begin, self._end = (tag.encode() for tag in tags)
        self._closing = tuple(closing)
        self._channels = channels
        self._where = _Where.BEFORE
        self._seen = b""  # what may be the beginning of the marker that is looked for
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._forced: deque[int] = deque()
        self.n_tokens = 0
        """Tokens of thoughts so far, without those that were forced."""
        if in_thoughts:
            self._enter(b"")

    @property
    def forced(self) -> int | None:
        """The token that must come next, in place of what would be sampled."""
        return self._forced[0] if self._forced else None

    def give_up(self) -> None:
        """The forced tokens cannot come, because a grammar does not allow them."""
        self._forced.clear()

    def push(self, token: int, piece: bytes) -> None:
        """Go on by a token, and the bytes that it adds to the text."""
        is_forced = bool(self._forced)
        if is_forced and self._forced.popleft() != token:
            self._forced.clear()
        if self._where is _Where.INSIDE:
            self.n_tokens += not is_forced
            self._think(piece)
        elif self._where is _Where.BEFORE:
            self._look_for_thought(piece)

    def _think(self, piece: bytes) -> None:
        self._decoder.decode(piece)
        seen = self._seen + piece
        _, found, after = seen.partition(self._end)
        if found:
            self._where, self._seen = _Where.BEFORE, b""
            self._look_for_thought(after)
            return
        self._seen = seen[-(len(self._end) - 1) :] if len(self._end) > 1 else b""
        self._close_if_spent()

    def _look_for_thought(self, piece: bytes) -> None:
        seen = self._seen + piece
        if not self._channels:
            seen = seen.lstrip()
            if not self._begin.startswith(seen[: len(self._begin)]):
                self._where, self._seen = _Where.OVER, b""
                return
        _, found, after = seen.partition(self._begin)
        if found:
            self._enter(after)
        else:
            self._seen = seen[-(len(self._begin) - 1) :]

    def _enter(self, after: bytes) -> None:
        """A thought begins, with these bytes of its first token but the marker's."""
        self._where, self._seen = _Where.INSIDE, b""
        self._decoder.reset()
        if after:
            self.n_tokens += 1
            self._think(after)
        else:
            self._close_if_spent()

    def _close_if_spent(self) -> None:
        over = self.n_tokens - self._budget
        if over >= 0 and not self._forced and (over >= _MOST_WAITED or not self._decoder.getstate()[0]):
            self._forced.extend(self._closing)
