"""Detokenizer: tokens → text, a piece at a time: whole code points only, and nothing of a stop string.

Pure: bytes in, text out.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from types import MappingProxyType


class StopMatcher:
    """Finds the stop string that is complete first in text that arrives in pieces.

    Text that may be the beginning of a stop string is held back until that is decided, so a client never sees part of
    one.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stop: str | None = None
        """The stop string that was met."""

    @property
    def matched(self) -> bool:
        """A stop string was met."""
        return self.stop is not None

    def push(self, text: str) -> str:
        """Add text; returns what can be shown. After a match nothing more is."""
        if self.matched or not self._stops:
            return "" if self.matched else text
        text = self._held + text
        # The one that is complete first, so that the result does not depend on how the text was cut.
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            _, at, self.stop = min(matches)
            self._held = ""
            return text[:at]
        held = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was held back, at the end of a generation that met no stop string."""
        held, self._held = self._held, ""
        return held


class Detokenizer:
    """The text side of one sequence: bytes of tokens in, text to show out."""

    def __init__(
        self,
        stops: tuple[str, ...] = (),
        *,
        front: str = "",
        markers: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """`front` is shown before the first token; `markers`: control tokens that are shown, and as what."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matcher = StopMatcher(stops)
        self._front = front
        self.markers = markers

    @property
    def stopped(self) -> bool:
        """A stop string was met."""
        return self._matcher.matched

    @property
    def stop(self) -> str | None:
        """The stop string that was met."""
        return self._matcher.stop

    def push(self, piece: bytes) -> str:
        """Add the bytes of a token. Bytes that cannot be UTF-8 become U+FFFD; an incomplete code point waits."""
        return self._take_front() + self._matcher.push(self._decoder.decode(piece))

    def flush(self) -> str:
        """The rest, when the generation ends otherwise. An incomplete code point at the very end is dropped."""
        return self._take_front() + self._matcher.flush()

    def _take_front(self) -> str:
        front, self._front = self._front, ""
        return front


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
