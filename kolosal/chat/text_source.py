"""Reading text that arrives in pieces: what is undecided waits, and nothing is looked at again.

Readers are generators that yield whenever they need more text, so they are written as if all of it were there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from json import dumps
from typing import TypeAlias, TypeVar

from kolosal.chat.json_scanner import BLANK, JsonScanner

T = TypeVar("T")

Reading: TypeAlias = Generator[None, None, T]
"""A reader: yields for more text, returns what it read."""


class TextSource:
    """Text that arrives in pieces, taken from its front."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = self._cut = False
        self._noted: list[str] | None = None

    def feed(self, text: str) -> None:
        """Add text."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self, *, cut: bool = False) -> None:
        """Say that no more comes; `cut`: the model did not end it."""
        self._ended, self._cut = True, cut

    @property
    def cut_off(self) -> bool:
        """Whether the text was cut, and all of it is taken: what was being read would have gone on."""
        return self._cut and self._at >= len(self._text)

    def take_cut_marker(self, markers: Sequence[str]) -> bool:
        """Whether the text was cut within one of the markers, whose beginning is taken if so: it is no text."""
        rest = self._text[self._at :]
        within = self._cut and rest != "" and any(marker.startswith(rest) for marker in markers)
        if within:
            self.take(len(rest))
        return within

    def note(self) -> None:
        """Begin to note what is taken."""
        self._noted = []

    def noted(self) -> str:
        """All that was taken since `note`; ends the noting."""
        noted, self._noted = self._noted or [], None
        return "".join(noted)

    def take(self, count: int) -> str:
        """The next characters, which are there."""
        taken = self._text[self._at : self._at + count]
        self._at += len(taken)
        if self._noted is not None:
            self._noted.append(taken)
        return taken

    def more(self) -> Reading[bool]:
        """Whether a character is there, waiting for one."""
        while self._at >= len(self._text):
            if self._ended:
                return False
            yield
        return True

    def peek(self) -> Reading[str]:
        """The next character without taking it; empty at the end."""
        return self._text[self._at] if (yield from self.more()) else ""

    def starts_with(self, literal: str) -> Reading[bool]:
        """Whether the text goes on with `literal`; takes it if so."""
        while len(self._text) - self._at < len(literal):
            if self._ended or not literal.startswith(self._text[self._at :]):
                return False
            yield
        if not self._text.startswith(literal, self._at):
            return False
        self.take(len(literal))
        return True

    def blanks(self) -> Reading[str]:
        """The white space that comes next."""
        found = ""
        while (yield from self.more()):
            rest = len(self._text)
            end = self._at
            while end < rest and self._text[end] in BLANK:
                end += 1
            found += self.take(end - self._at)
            if end < rest:
                break
        return found

    def while_in(self, allowed: re.Pattern[str], at_most: int) -> Reading[str]:
        """The characters that come next and match, one after the other, up to a count."""
        found: list[str] = []
        count = 0
        while count < at_most and (yield from self.more()):
            match = allowed.match(self._text, self._at, self._at + at_most - count)
            if match is None:
                break
            found.append(self.take(match.end() - self._at))
            count += len(found[-1])
        return "".join(found)

    def matches(self, literal: str) -> Reading[bool]:
        """Whether the text goes on with `literal`, whatever the white space; what matched is taken."""
        for char in literal:
            if char in BLANK:
                continue
            yield from self.blanks()
            if (yield from self.peek()) != char:
                return False
            self.take(1)
        return True

    def until(self, markers: Sequence[str], show: Callable[[str], None]) -> Reading[str | None]:
        """Show text until one of the markers, which is taken and returned; None at the end.

        What may be the beginning of a marker is held back until that is decided.
        """
        firsts = re.compile("|".join(re.escape(char) for char in sorted({marker[0] for marker in markers})))
        while (yield from self.more()):
            match = firsts.search(self._text, self._at) if markers else None
            end = len(self._text) if match is None else match.start()
            if end > self._at:
                show(self.take(end - self._at))
            if match is None:
                continue
            for marker in markers:
                if (yield from self.starts_with(marker)):
                    return marker
            if self.take_cut_marker(markers):
                return None
            show(self.take(1))
        return None

    def string(self, ends: Sequence[str], show: Callable[[str], None]) -> Reading[bool]:
        """Show text until one of `ends` as a JSON string; False where the text ends before."""
        show('"')
        end = yield from self.until(ends, lambda text: show(dumps(text, ensure_ascii=False)[1:-1]))
        if end is None:
            return False
        show('"')
        return True

    def json(self, scanner: JsonScanner, show: Callable[[str], None]) -> Reading[bool]:
        """Show text until the scanner's value is complete; False where it is broken, or the text ends before."""
        while not scanner.complete and (yield from self.more()):
            end = scanner.scan(self._text, self._at)
            if end > self._at:
                show(self.take(end - self._at))
            if scanner.broken:
                return False
        return scanner.complete
