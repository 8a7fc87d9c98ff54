"""Patterns of JSON schemas, which are regular expressions as JavaScript has them → as llguidance takes them. Pure.

llguidance has Rust's syntax without what looks around or back. What it lacks is left out, so that more strings match than should,
never fewer; whoever asks is told so. Python's spellings of groups and anchors are taken, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_PATTERN_CHARS = 2_000
"""Characters of one pattern; a longer one is not enforced."""

_MAX_SIZE = 4_000
"""Characters that a pattern has with its counted repetitions written out; larger counts are left open."""

_MAX_WRITTEN_CHARS = 40_000
_MAX_DEPTH = 40
_ANY = r"[\x00-\U0010ffff]"
_CLASSES = {
    "d": "0-9",
    "w": "A-Za-z0-9_",
    "s": r"\x09-\x0d\x20\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff",
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0", "a": "\a", "e": "\x1b"}
_LOOK = re.compile(r"\(\?(?:<?[=!])")
_GROUP = re.compile(r"\((?:\?(?:P?<([A-Za-z_$][\w$]*)>|P?'(\w+)'|>|[a-z]*(?:-[a-z]+)?:))?")
_FLAGS = re.compile(r"\(\?([a-z]+)\)")
_COUNTS = re.compile(r"\{(\d{1,9})(?:(,)(\d{1,9})?)?\}")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|x\{([0-9a-fA-F]{1,6})\}")
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_PROPERTY = re.compile(r"[pP]\{(?:(?:gc|General_Category)=)?([A-Z][a-z]?)\}")
_OTHER_PROPERTY = re.compile(r"[pP]\{[^}]*\}")
_REFERENCE = re.compile(r"([1-9]\d?)|k<([^>]*)>")


class _NotRead(Exception):
    """The pattern is none, or one that is not known here."""


@dataclass(slots=True)
class _PatternPiece:
    text: str
    size: int = 1
    zero_width: bool = False


@lru_cache(maxsize=512)
def enforceable_pattern(pattern: str) -> tuple[str | None, bool]:
    """The pattern for llguidance, and whether it matches the same strings; None where nothing of it can be enforced."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return None, False
    reader = _PatternReader(pattern)
    try:
        text = reader.whole()
    except _NotRead:
        return None, False
    return text, reader.exact


class _PatternReader:
    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._groups: list[_PatternPiece | None] = []
        self._names: dict[str, int] = {}
        self.exact = True

    def whole(self) -> str:
        flags = self._match(_FLAGS)
        piece = self._choice()
        if self._at < len(self._text):
            raise _NotRead
        return piece.text if flags is None else f"(?{self._flags(flags[1])}:{piece.text})"

    # --- structure ---

    def _choice(self) -> _PatternPiece:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotRead
        pieces = [self._sequence()]
        while self._take("|"):
            pieces.append(self._sequence())
        self._depth -= 1
        return _PatternPiece("|".join(piece.text for piece in pieces), sum(piece.size for piece in pieces))

    def _sequence(self) -> _PatternPiece:
        whole = _PatternPiece("", 0)
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            piece = self._repeated(self._term(), whole.size)
            whole.text += piece.text
            whole.size += piece.size
            if whole.size > _MAX_SIZE or len(whole.text) > _MAX_WRITTEN_CHARS:
                raise _NotRead
        return whole

    def _term(self) -> _PatternPiece:
        if self._match(_LOOK) is not None:
            self._choice()
            self._close()
            return self._dropped()
        if self._take("("):
            self._at -= 1
            return self._group()
        if self._take("["):
            return _PatternPiece(self._class())
        if self._take("\\"):
            return self._escape()
        char = self._text[self._at]
        if char in "*+?":
            raise _NotRead
        self._at += 1
        if char in "^$":
            return _PatternPiece(char, 0, zero_width=True)
        return _PatternPiece(r"[^\x0a\x0d\u2028\u2029]" if char == "." else _literal(char))

    def _group(self) -> _PatternPiece:
        head = self._match(_GROUP)
        if head is None or (head[0] == "(" and self._text.startswith("?", self._at)):
            raise _NotRead
        captures = head[0] == "(" or bool(head[1] or head[2])
        index = len(self._groups)
        if captures:
            self._groups.append(None)
            self._names[head[1] or head[2] or ""] = index
        inside = self._choice()
        self._close()
        flags = head[0][2:-1] if head[0].endswith(":") else ""
        piece = _PatternPiece(f"(?{self._flags(flags)}:{inside.text})", inside.size)
        if captures:
            self._groups[index] = piece
        return piece

    def _close(self) -> None:
        if not self._take(")"):
            raise _NotRead

    def _flags(self, flags: str) -> str:
        if set(flags) <= set("is-"):
            return flags
        self.exact = False
        return ""

    def _repeated(self, piece: _PatternPiece, size_before: int) -> _PatternPiece:
        least, most, text = self._quantifier()
        if not text or piece.zero_width:
            return piece
        times = least if most is None else most
        if size_before + piece.size * max(times, 1) > _MAX_SIZE:
            self.exact = False
            text, times = "+" if least else "*", 1
        return _PatternPiece(f"{piece.text}{text}", piece.size * max(times, 1))

    def _quantifier(self) -> tuple[int, int | None, str]:
        """The least and the most times, and how they are written; empty where there is none."""
        counts = self._match(_COUNTS)
        if counts is not None:
            least = int(counts[1])
            most = least if counts[2] is None else None if counts[3] is None else int(counts[3])
            if most is not None and most < least:
                raise _NotRead
            found = least, most, f"{{{least}{'' if counts[2] is None else ','}{counts[3] or ''}}}"
        elif self._at < len(self._text) and self._text[self._at] in "*+?":
            char = self._text[self._at]
            self._at += 1
            found = int(char == "+"), 1 if char == "?" else None, char
        else:
            return 1, 1, ""
        if not self._take("?"):  # which of two ways is tried first changes nothing for a whole text
            self._take("+")
        return found

    def _dropped(self) -> _PatternPiece:
        self.exact = False
        return _PatternPiece("", 0, zero_width=True)

    # --- escapes and classes ---

    def _escape(self) -> _PatternPiece:
        """What stands after a backslash, outside of a class."""
        char = self._text[self._at : self._at + 1]
        if char in ("b", "B", "G"):
            self._at += 1
            return self._dropped()
        if char in ("A", "Z", "z"):
            self._at += 1
            return _PatternPiece("^" if char == "A" else "$", 0, zero_width=True)
        reference = self._match(_REFERENCE)
        if reference is not None:
            return self._reference(reference)
        in_class, single = self._escaped()
        return _PatternPiece(_literal(single)) if single is not None else _PatternPiece(f"[{in_class}]")

    def _reference(self, match: re.Match[str]) -> _PatternPiece:
        """What a group matched, again: anything that it matches."""
        self.exact = False
        index = int(match[1]) - 1 if match[1] else self._names.get(match[2], -1)
        group = self._groups[index] if 0 <= index < len(self._groups) else None
        return _PatternPiece("(?:)", 0) if group is None else group

    def _escaped(self) -> tuple[str, str | None]:
        """An escape as a part of a class, and the one character that it is, if it is one."""
        code = self._match(_HEX)
        if code is not None:
            return self._code(int(next(part for part in code.groups() if part), 16))
        known = self._match(_PROPERTY)
        if known is not None:
            return f"\\{known[0][0]}{{{known[1]}}}", None
        if self._match(_OTHER_PROPERTY) is not None:
            self.exact = False
            return _ANY[1:-1], None
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if not char:
            raise _NotRead
        if char == "c" and self._text[self._at : self._at + 1].isalpha():
            self._at += 1
            return self._code(ord(self._text[self._at - 1]) % 32)
        if char in _CLASSES:
            return _CLASSES[char], None
        if char.lower() in _CLASSES:
            return f"[^{_CLASSES[char.lower()]}]", None
        char = _CONTROLS.get(char, char)
        return _literal(char), char

    def _code(self, number: int) -> tuple[str, str | None]:
        if 0xD800 <= number < 0xDC00 and (low := self._match(_LOW_SURROGATE)) is not None:
            number = 0x10000 + (number - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00
        if number > 0x10FFFF:
            raise _NotRead
        if 0xD800 <= number < 0xE000:  # half of a character, which no text has alone
            self.exact = False
            return _ANY[1:-1], None
        return _literal(chr(number)), chr(number)

    def _class(self) -> str:
        negated, exact = self._take("^"), self.exact
        parts: list[str] = []
        while not self._take("]"):
            part, first = self._member()
            if self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] not in (
                "]",
                "",
            ):
                self._at += 1
                other, last = self._member()
                if first is None or last is None:
                    parts += [part, r"\x2d", other]
                elif first > last:
                    raise _NotRead
                else:
                    parts.append(f"{part}-{other}")
            else:
                parts.append(part)
        if not parts:
            if not negated:
                raise _NotRead  # matches nothing
            return _ANY
        if negated and exact != self.exact:
            return _ANY  # without what is more than it should be, there would be less than there should
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _member(self) -> tuple[str, str | None]:
        """A member of a class as it is written there, and the one character that it is, if it is one."""
        if self._at >= len(self._text):
            raise _NotRead
        if self._take("\\"):
            if self._take("b"):
                return r"\x08", "\b"
            return self._escaped()
        char = self._text[self._at]
        self._at += 1
        return _literal(char), char

    # --- pieces ---

    def _take(self, char: str) -> bool:
        found = self._text.startswith(char, self._at)
        self._at += len(char) if found else 0
        return found

    def _match(self, wanted: re.Pattern[str]) -> re.Match[str] | None:
        match = wanted.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match


def _literal(char: str) -> str:
    """A character that is itself, in and out of classes."""
    if char.isascii() and (char.isalnum() or char == "_"):
        return char
    number = ord(char)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )
