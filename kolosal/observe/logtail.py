"""LogTail: the last lines a worker wrote to stderr, also those of the worker before it."""

from __future__ import annotations

from kolosal.observe.ring import Ring

MAX_LINES = 2000
"""Lines that are kept of each engine."""

MAX_TAIL_CHARS = 512 * 1024
"""Characters of them all."""

MAX_LINE_CHARS = 4096
"""Characters of one line; a longer one is cut in pieces."""

_CONTROL = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09}
"""Lines are shown in terminals, where control characters are commands."""


class LogTail:
    """Makes lines of bytes as they come. Used on the event loop only."""

    def __init__(self) -> None:
        self.ring: Ring[str] = Ring(MAX_LINES, MAX_TAIL_CHARS, len)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Add what the worker wrote. Empty bytes: it has ended, and so has its last line."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MAX_LINE_CHARS or (rest and not data):
            lines.append(rest[:MAX_LINE_CHARS])
            rest = rest[MAX_LINE_CHARS:]
        self._rest = rest
        for line in lines:
            # a line that is rewritten in place, as progress is, is shown as it was last
            text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2].translate(_CONTROL)
            for start in range(0, max(len(text), 1), MAX_LINE_CHARS):
                self.ring.append(text[start : start + MAX_LINE_CHARS])
