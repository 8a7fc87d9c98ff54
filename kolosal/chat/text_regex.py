"""A regular expression of texts → that of the same texts as a call has them: as they are, or within a JSON string.

Custom tools take text in a format of the client's, and most models write their calls as JSON: where the text has a quote, the call
has a backslash and a quote. Reads and writes the dialect of Rust's `regex`, without look-around. Pure.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

_PLAIN = r"[^\x22\x5c\x00-\x1f]"
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "e": "\x1b"}
_CODE = re.compile(
    r"[xu]\{([0-9A-Fa-f]{1,8})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})", re.ASCII
)
_SET = re.compile(r"[dDwWsS]|[pP](?:[A-Z]|\{\^?[A-Za-z_=:-]{1,64}\})")
_PROPERTY = re.compile(r"\\[pP](?:[A-Z]|\{[^}]*\})")
_GROUP = re.compile(r"\(\?(?:P?<[A-Za-z_]\w*>|(?P<flags>[a-zA-Z-]*)[:)])")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\\\]])*\]", re.DOTALL)
_COUNT = re.compile(r"\{[0-9]*,?[0-9]*\}")
_ANCHORS = frozenset("bBAzZ")


class UnreadableFormat(ValueError):
    """A format that is not understood here; the message says what is in the way."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """How a call has its text. All that this gives are regular expressions."""

    escaped: Mapping[str, str]
    """The characters that are not written as they are, and what is written for them: a backslash and more."""

    def regex(self, pattern: str, *, dot_all: bool = False) -> str:
        """What `pattern` matches; `dot_all`: a dot is also a line's end.

        Raises:
            UnreadableFormat: it has what cannot be written so.
        """
        return _Pattern(self, pattern, dot_all).written()

    def literal(self, text: str, *, fold: bool = False) -> str:
        """One text; `fold`: in any case."""
        written = "".join(map(self.char, text))
        return f"(?i:{written})" if fold else written

    def range(self, first: str, last: str) -> str:
        """One character of a range."""
        return self.one_of(f"[{_code(first)}-{_code(last)}]")

    def char(self, char: str) -> str:
        """One character."""
        escaped = self.escaped.get(char)
        return _code(char) if escaped is None else _escapes([escaped])

    def one_of(self, chars: str) -> str:
        """One character of a class."""
        found = [escaped for char, escaped in self.escaped.items() if _holds(chars, char)]
        return f"(?:[{chars}&&{_PLAIN}]|{_escapes(found)})" if found else chars


IN_JSON = TextForm({chr(code): json.dumps(chr(code))[1:-1] for code in (*range(32), 0x22, 0x5C)})
"""Within a JSON string."""

AS_IS = TextForm({})
"""As it is."""


def read_escape(text: str, at: int) -> tuple[str, int]:
    """The character that an escape stands for, after its backslash, and where it ends."""
    code = _CODE.match(text, at)
    if code is not None:
        number = int(next(filter(None, code.groups())), 16)
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise UnreadableFormat(f"\\{code[0]} is no character")
        return chr(number), code.end()
    if at >= len(text):
        raise UnreadableFormat("it ends with a backslash")
    return _NAMED.get(text[at], text[at]), at + 1


def _code(char: str) -> str:
    """A character as an expression writes it, whatever it means there."""
    return char if char.isalnum() or char in " _" else f"\\x{{{ord(char):x}}}"


def _escapes(written: list[str]) -> str:
    """One of these escapes; never folded, as JSON knows \\n and no \\N."""
    short = [_code(each[1]) for each in written if len(each) == 2]
    digits = [each[-2:] for each in written if len(each) > 2]
    choices = [f"[{''.join(short)}]"] if short else []
    if digits:
        choices.append(f"u00(?:{'|'.join(digits)})")
    return rf"(?-i:\x{{5c}}(?:{'|'.join(choices)}))"


def _holds(chars: str, char: str) -> bool:
    """Whether a class has a character that JSON escapes. No property has one, and what is no property has them all."""
    plain = _PROPERTY.sub(lambda found: r"\x00-\x1f\"\\" if found[0][1] == "P" else "", chars)
    plain = re.sub(r"\\[xu]\{([0-9A-Fa-f]+)\}", lambda found: f"\\U{int(found[1], 16):08x}", plain)
    if plain in ("[]", "[^]"):
        return plain == "[^]"
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        try:
            return re.fullmatch(plain, char) is not None
        except (re.error, FutureWarning, OverflowError):
            raise UnreadableFormat(f"the class {chars[:60]} is not understood here") from None


@dataclass(slots=True)
class _Pattern:
    """Writes one expression anew."""

    form: TextForm
    pattern: str
    dot_all: bool

    def written(self) -> str:
        """The whole of it."""
        pieces, at = [], 0
        while at < len(self.pattern):
            piece, at = self._piece(at)
            pieces.append(piece)
        return "".join(pieces)

    def _piece(self, at: int) -> tuple[str, int]:
        char = self.pattern[at]
        match char:
            case "\\":
                return self._escape(at + 1)
            case "[":
                return self._class(at)
            case "(":
                return self._group(at)
            case ".":
                return self.form.one_of(r"[\x00-\x{10ffff}]" if self.dot_all else r"[^\n]"), at + 1
            case "{" if (count := _COUNT.match(self.pattern, at)) is not None:
                return count[0], count.end()
            case "^" | "$":
                raise UnreadableFormat(f"{char} stands within a regular expression")
            case "|" | ")" | "*" | "+" | "?":
                return char, at + 1
            case _:
                return self.form.char(char), at + 1

    def _escape(self, at: int) -> tuple[str, int]:
        named = _SET.match(self.pattern, at)
        if named is not None:
            return self.form.one_of(f"[\\{named[0]}]"), named.end()
        if self.pattern[at : at + 1] in _ANCHORS:
            raise UnreadableFormat(f"\\{self.pattern[at]} stands in a regular expression")
        char, end = read_escape(self.pattern, at)
        return self.form.char(char), end

    def _class(self, at: int) -> tuple[str, int]:
        found = _CLASS.match(self.pattern, at)
        if found is None:
            raise UnreadableFormat("a class has no end")
        plain = re.sub(r"\\.", "", found[0][1:-1])
        if "[" in plain or "&&" in plain:
            raise UnreadableFormat(f"the class {found[0][:60]} is not understood here")
        return self.form.one_of(re.sub(r"\\?/", r"\\x{2f}", found[0])), found.end()

    def _group(self, at: int) -> tuple[str, int]:
        if self.pattern[at + 1 : at + 2] != "?":
            return "(?:", at + 1
        group = _GROUP.match(self.pattern, at)
        if group is None:
            raise UnreadableFormat(f"{self.pattern[at : at + 4]} stands in a regular expression")
        flags = group["flags"] or ""
        if "x" in flags or "m" in flags:
            raise UnreadableFormat("a regular expression has the flag x or m")
        if "s" in flags.partition("-")[0]:
            self.dot_all = True  # to its end, as people write it
        return group[0] if group["flags"] is not None else "(?:", group.end()
