"""Numbers and white space of JSON end: how many digits or blanks may stand in a row.

JSON and its schemas let a number have any number of digits, and a small model counts on until its answer is cut. llguidance
cannot bound them, so tokens that would go on with a run that is long enough are taken out of what it allows; never all of it, and
never in strings or free text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Final

MAX_INTEGER_DIGITS: Final = 19
"""Before the point: as the longest 64-bit integer has."""

MAX_FRACTION_DIGITS: Final = 17
"""After the point: as a double can tell apart."""

MAX_EXPONENT_DIGITS: Final = 2
"""With three a number could be more than a double holds."""

MAX_BLANKS: Final = 32
"""White space between two tokens of JSON."""

_TAIL_BYTES: Final = 128
"""How much of the text is looked at: more than the longest number or run of blanks."""

_NUMBER: Final = re.compile(rb"(?<![\w.+\-])-?(\d+)(\.\d*)?([eE][+\-]?\d*)?\Z")
_BLANKS: Final = re.compile(rb"[ \t\r\n]+\Z")
_NUMBER_TOKEN: Final = re.compile(rb"[0-9.eE+\-]+")

_NUMBER_BYTES: Final = frozenset(b"0123456789.eE+-")
_BLANK_BYTES: Final = frozenset(b" \t\r\n")
_AFTER_NUMBER: Final = frozenset(b",]}<") | _BLANK_BYTES
_LETTERS: Final = range(ord("a"), ord("z") + 1)
_FEW_LETTERS: Final = 8
"""Where fewer may follow, it is neither a string nor text: `true`, `false` and `null` begin with three."""


class RunVocabulary:
    """What tokens do to runs. One for all texts of a vocabulary; its tokens are looked through when a run first gets long."""

    def __init__(self, token_bytes: Callable[[int], bytes], n_vocab: int) -> None:
        """`token_bytes`: what a token adds to a text."""
        self.token_bytes = token_bytes
        self._n_vocab = n_vocab
        self._too_long: dict[bytes, int] = {}

    @cached_property
    def _tokens(self) -> list[tuple[int, bytes]]:
        """Those that are a byte, a number, or begin with a blank."""
        every = ((token, self.token_bytes(token)) for token in range(self._n_vocab))
        return [
            (token, data)
            for token, data in every
            if len(data) == 1 or data[:1] in b" \t\r\n" or _NUMBER_TOKEN.match(data)
        ]

    @cached_property
    def token_of_byte(self) -> dict[int, int]:
        """The tokens of single bytes."""
        return {data[0]: token for token, data in self._tokens if len(data) == 1}

    @cached_property
    def blanks(self) -> int:
        """The tokens that begin with a blank, as a bit each."""
        return sum(1 << token for token, data in self._tokens if data[:1] and data[0] in _BLANK_BYTES)

    def too_long_after(self, number: bytes) -> int:
        """The tokens that would make a number too long, as a bit each."""
        shape = re.sub(rb"\d", b"0", number)  # only how many digits it has counts
        if shape not in self._too_long:
            self._too_long[shape] = sum(1 << token for token, data in self._tokens if _overruns(shape, data))
        return self._too_long[shape]


class RunLimits:
    """The end of one text, and how it must not go on."""

    def __init__(self, vocabulary: RunVocabulary) -> None:
        self._vocabulary = vocabulary
        self._tail = b""

    def extend(self, tokens: Iterable[int]) -> None:
        """Note the next tokens of the text."""
        self._tail = (self._tail + b"".join(map(self._vocabulary.token_bytes, tokens)))[-_TAIL_BYTES:]

    def limited(self, mask: bytes) -> bytes:
        """What is left of the tokens that are allowed next."""
        last = self._tail[-1] if self._tail else 0
        if last in _NUMBER_BYTES:
            number = _NUMBER.search(self._tail)
            if number is not None and _is_long(number) and self._is_number(mask):
                return _without(mask, self._vocabulary.too_long_after(number[0]))
        elif last in _BLANK_BYTES:
            blanks = _BLANKS.search(self._tail)
            if blanks is not None and len(blanks[0]) >= MAX_BLANKS and self._is_between_tokens(mask):
                return _without(mask, self._vocabulary.blanks)
        return mask

    def _is_number(self, mask: bytes) -> bool:
        """Whether nothing may follow but more of a number and what comes after one. In a string other things may."""
        others = (
            token
            for byte, token in self._vocabulary.token_of_byte.items()
            if byte not in _NUMBER_BYTES and byte not in _AFTER_NUMBER
        )
        return not any(_allows(mask, token) for token in others)

    def _is_between_tokens(self, mask: bytes) -> bool:
        tokens = (self._vocabulary.token_of_byte.get(letter) for letter in _LETTERS)
        return sum(token is not None and _allows(mask, token) for token in tokens) < _FEW_LETTERS


def _digits(number: re.Match[bytes]) -> tuple[int, int, int]:
    """How many it has before the point, after it, and in the exponent."""
    whole, fraction, exponent = number[1], number[2] or b"", number[3] or b""
    return len(whole), max(len(fraction) - 1, 0), len(exponent.lstrip(b"eE+-"))


def _is_long(number: re.Match[bytes]) -> bool:
    """Whether one more token could make it too long: few have more than three digits."""
    n_whole, n_fraction, _ = _digits(number)
    return n_whole > MAX_INTEGER_DIGITS - 4 or n_fraction > MAX_FRACTION_DIGITS - 4 or bool(number[3])


def _overruns(shape: bytes, data: bytes) -> bool:
    begin = _NUMBER_TOKEN.match(data)
    number = None if begin is None else _NUMBER.search(shape + begin[0])
    if number is None:
        return False
    n_whole, n_fraction, n_exponent = _digits(number)
    return (
        n_whole > MAX_INTEGER_DIGITS or n_fraction > MAX_FRACTION_DIGITS or n_exponent > MAX_EXPONENT_DIGITS
    )


def _allows(mask: bytes, token: int) -> bool:
    return bool(mask[token >> 3] >> (token & 7) & 1)


def _without(mask: bytes, tokens: int) -> bytes:
    """The mask without some tokens; all of it, where nothing would be left."""
    allowed = int.from_bytes(mask, "little")
    left = allowed & ~tokens
    return left.to_bytes(len(mask), "little") if left else mask
