"""JsonScanner: where a JSON value (RFC 8259) ends in text that arrives in pieces, and whether it is one."""

from __future__ import annotations

import re

MAX_DEPTH = 128
"""Arrays and objects within each other."""

BLANK = " \t\r\n"
"""White space as JSON has it."""

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
SCALAR = re.compile(r"(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\Z")
"""A JSON value that is neither string, array nor object."""

_SCALAR_CHARS = re.compile(r"[-+.0-9A-Za-z]+")
_MAX_SCALAR_CHARS = 4096


class JsonScanner:
    """Finds the end of a JSON object or string, character by character, and whether it is one."""

    def __init__(self, expect: str = "{", *, inside: bool = False) -> None:
        """`expect`: the character it must begin with. `inside`: begin after a member of an object instead."""
        self._expect = expect
        self._stack = ["{"] if inside else []
        self._next = "after" if inside else "first"
        self._escape = 0
        self._scalar = ""
        self.complete = False
        self.broken = False

    def scan(self, text: str, at: int) -> int:
        """Look at `text` from `at` on; returns where the value ends, or is broken, or the text ends."""
        while at < len(text) and not self.complete and not self.broken:
            at = self._step(text, at)
        return at

    def _step(self, text: str, at: int) -> int:
        if self._next in ("string", "key"):
            return self._in_string(text, at)
        if self._next == "scalar":
            return self._in_scalar(text, at)
        char = text[at]
        if char in BLANK and self._next != "first":
            return at + 1
        if not self._structure(char):
            self.broken = True
            return at
        return at if self._next == "scalar" else at + 1

    def _structure(self, char: str) -> bool:
        """Whether a character outside of strings and scalars may stand here."""
        match self._next:
            case "first":
                return char == self._expect and self._value(char)
            case "value":
                return self._value(char)
            case "first item":
                return self._close() if char == "]" else self._value(char)
            case "first key" | "next key":
                if char == "}" and self._next == "first key":
                    return self._close()
                self._next = "key"
                return char == '"'
            case "colon":
                self._next = "value"
                return char == ":"
            case _:
                return self._after(char)

    def _value(self, char: str) -> bool:
        if char == '"':
            self._next = "string"
        elif char in "{[":
            self._stack.append(char)
            self._next = "first key" if char == "{" else "first item"
        else:
            self._scalar = ""
            self._next = "scalar"
            return char in "-0123456789tfn"
        return len(self._stack) <= MAX_DEPTH

    def _after(self, char: str) -> bool:
        """After a value within an object or array."""
        within = self._stack[-1]
        if char == ",":
            self._next = "next key" if within == "{" else "value"
            return True
        return char == ("}" if within == "{" else "]") and self._close()

    def _close(self) -> bool:
        self._stack.pop()
        self._end_value()
        return True

    def _end_value(self) -> None:
        self._next = "after"
        self.complete = not self._stack

    def _in_string(self, text: str, at: int) -> int:
        char = text[at]
        if self._escape:
            return self._in_escape(char, at)
        plain = _PLAIN.match(text, at)
        if plain is not None:
            return plain.end()
        if char == "\\":
            self._escape = _ESCAPE
        elif char == '"':
            if self._next == "key":
                self._next = "colon"
            else:
                self._end_value()
        else:
            self.broken = True
            return at
        return at + 1

    def _in_escape(self, char: str, at: int) -> int:
        if self._escape == _ESCAPE:
            self.broken = char not in '"\\/bfnrtu'
            self._escape = 4 if char == "u" else 0
        else:
            self.broken = char not in "0123456789abcdefABCDEF"
            self._escape -= 1
        return at if self.broken else at + 1

    def _in_scalar(self, text: str, at: int) -> int:
        match = _SCALAR_CHARS.match(text, at)
        if match is not None:
            self._scalar += match[0]
            self.broken = len(self._scalar) > _MAX_SCALAR_CHARS
            return match.end()
        if SCALAR.match(self._scalar) is None:
            self.broken = True
        else:
            self._end_value()
        return at


_ESCAPE = 5
"""After a backslash; 4 to 1 are the digits that a `\\u` still needs."""
