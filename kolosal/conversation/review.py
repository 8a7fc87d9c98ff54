"""Reviews: what a model writes about a draft, read as suggestions, a revised answer and comments.

Pure. Small models keep to no format: headings come bold, numbered, with a colon, twice or not at all. What is missing is
told as missing, and whoever asked has a draft to fall back on.
"""

from __future__ import annotations

import re
from enum import StrEnum

MISSING = "None"
"""What stands for a section that a review does not have."""

_HELD_CHARS = 12
"""The first characters of a section wait until it is sure that they are more than a word for nothing."""

_NOTHING = frozenset({"", "none", "n/a"})


class Section(StrEnum):
    """The parts of a review, named as their headings."""

    IMPROVEMENTS = "Improvements"
    REVISED = "Revised Answer"
    COMMENTS = "Comments"


_SECTIONS = {
    "improvement": Section.IMPROVEMENTS,
    "improvements": Section.IMPROVEMENTS,
    "revised answer": Section.REVISED,
    "comment": Section.COMMENTS,
    "comments": Section.COMMENTS,
}

_SPACE = r"[ \t]*+"
_NAME = r"(?P<name>improvements?|revised[ \t]++answer|comments?)"

_HEADING = re.compile(
    rf"{_SPACE}(?:\#{{1,6}}+{_SPACE}\**+|\*\*){_SPACE}(?:\d{{1,2}}+[.)]{_SPACE})?{_NAME}"
    rf"{_SPACE}\**+{_SPACE}(?::{_SPACE}\**+{_SPACE}(?P<rest>.*)|$)|"
    rf"{_SPACE}{_NAME.replace('name', 'plain')}{_SPACE}:{_SPACE}$",
    re.IGNORECASE,
)
"""A heading with signs of one may have text after a colon; without them it must stand alone.

Nothing is tried twice (`*+`): a model can be made to write very long lines of blanks.
"""

_DECORATION = re.compile(rf"{_SPACE}#{{0,6}}+{_SPACE}\**+{_SPACE}(?:\d{{1,2}}+(?:[.)]{_SPACE})?)?")


class ReviewReader:
    """Reads one review, in pieces of any size.

    `push` and `end` return what has become sure of the revised answer, so that it can be shown while it is written; their
    sum is `revision`. Of a section that comes more than once the first that says anything counts.
    """

    def __init__(self) -> None:
        self._found: dict[Section, str] = {}
        self._current: Section | None = None
        self._text: list[str] = []
        self._line = ""
        self._is_text = False
        """The line at hand is no heading, whatever follows."""
        self._held = ""
        """Of the revised answer: what was not shown yet."""
        self._shows = False

    @property
    def revision(self) -> str | None:
        """The revised answer; None where there is none."""
        return self._found.get(Section.REVISED)

    def section(self, section: Section) -> str:
        """A section's text, or `MISSING`."""
        return self._found.get(section, MISSING)

    def push(self, piece: str) -> str:
        """Read on."""
        *ended, rest = piece.split("\n")
        return "".join([*map(self._end_line, ended), self._grow(rest)])

    def end(self) -> str:
        """The review is over."""
        return self._end_line("") + self._close()

    def _grow(self, piece: str) -> str:
        self._line += piece
        if self._is_text:
            return self._add(piece)
        if _may_be_heading(self._line):
            return ""
        self._is_text = True
        return self._add(self._line)

    def _end_line(self, piece: str) -> str:
        shown = self._grow(piece)
        heading = None if self._is_text else _HEADING.match(self._line)
        if heading is not None:
            shown += self._open(heading)
        else:
            shown += self._add("\n" if self._is_text else self._line + "\n")
        self._line, self._is_text = "", False
        return shown

    def _open(self, heading: re.Match[str]) -> str:
        shown = self._close()
        name = heading["name"] or heading["plain"]
        self._current = _SECTIONS[" ".join(name.lower().split())]
        self._held, self._shows = "", False
        return shown + (self._add(heading["rest"] + "\n") if heading["rest"] else "")

    def _close(self) -> str:
        """The end of a section: it counts where it says anything."""
        text, self._text = "".join(self._text).strip(), []
        if self._current is None or self._current in self._found or not _says_anything(text):
            return ""
        self._found[self._current] = text
        return self._held.strip() if self._current is Section.REVISED and not self._shows else ""

    def _add(self, text: str) -> str:
        if self._current is None:
            return ""
        self._text.append(text)
        if self._current is not Section.REVISED or Section.REVISED in self._found:
            return ""
        self._held += text
        if not self._shows:
            self._held = self._held.lstrip()
            if len(self._held.rstrip()) <= _HELD_CHARS:
                return ""
            self._shows = True
        shown = self._held.rstrip()
        self._held = self._held[len(shown) :]
        return shown


def parse_review_sections(reply: str) -> tuple[str, str, str]:
    """Suggestions, revised answer and comments of a review; a section that is missing is the text `"None"`."""
    reader = ReviewReader()
    reader.push(reply)
    reader.end()
    return (
        reader.section(Section.IMPROVEMENTS),
        reader.section(Section.REVISED),
        reader.section(Section.COMMENTS),
    )


def _may_be_heading(line: str) -> bool:
    """Whether a line that has begun like this can still become a heading."""
    start = _DECORATION.match(line)
    rest = " ".join(line[start.end() if start else 0 :].lower().split())
    return any(name.startswith(rest) or rest.startswith(name) for name in _SECTIONS)


def _says_anything(text: str) -> bool:
    return len(text) > _HELD_CHARS or text.lower().strip(" .*_-\n\t") not in _NOTHING
