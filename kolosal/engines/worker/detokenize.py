"""Detokenizer: tokens → text, a piece at a time: whole code points only, and nothing of a stop string.

Pure: bytes in, text out.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from types import MappingProxyType


class Detokenizer:
    """The text side of one sequence: bytes of tokens in, text to show out.

    Text that may be the beginning of a stop string is held back until that is decided, so a client never sees part of one.
    """

    def __init__(
        self,
        stops: tuple[str, ...] = (),
        *,
        front: str = "",
        markers: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """`front` is shown before the first token; `markers`: control tokens that are shown, and as what."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(filter(None, stops))
        self._front = front
        self._held = ""
        self._n_cut = 0
        self.n_chars = 0
        """Characters of all tokens so far, shown or not; those of `front` do not count."""
        self.markers = markers
        self.stop: str | None = None
        """The stop string that was met: nothing more is shown."""

    def push(self, piece: bytes) -> str:
        """Add the bytes of a token; returns what can be shown.

        Bytes that cannot be UTF-8 become U+FFFD; an incomplete code point waits.
        """
        front, self._front = self._front, ""
        text = self._decoder.decode(piece)
        self.n_chars += len(text)
        if self.stop is not None:
            return front
        if not self._stops:
            return front + text
        text = self._held + text
        # The one that is complete first, so that the result does not depend on how the text was cut.
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            _, at, self.stop = min(matches)
            self._n_cut = len(text) - at
            self._held = ""
            return front + text[:at]
        shown = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[shown:]
        return front + text[:shown]

    @property
    def n_shown(self) -> int:
        """How many of `n_chars` were shown."""
        return self.n_chars - len(self._held) - self._n_cut

    def flush(self) -> str:
        """The rest, when the generation ends otherwise. An incomplete code point at the very end is dropped."""
        rest = self._front + self._held
        self._front = self._held = ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
