"""Special-token escaping: where a user spells a control token, it stays text and never becomes the token."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Protocol

# A private-use pair: no tokenizer of the field gives these a meaning, and a template passes them through.
_OPEN, _CLOSE = "\uf8fe", "\uf8ff"
_MARK = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")

END_MARK = f"{_OPEN}end{_CLOSE}"
"""Put at the end of a text to find it again in what a template makes; no text of a user can hold it."""


class Vocabulary(Protocol):
    """What is needed of a model."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def control_texts(self) -> frozenset[str]: ...


class SpecialTokenEscaper:
    """Replaces spellings of the control tokens of one vocabulary by numbered marks, so that a template passes them through."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @cached_property
    def _spellings(self) -> list[str]:
        """What the marks stand for, by their number. A mark's first character is one, so that no text of a user can make a
        mark. On first use: it looks at every token of the vocabulary."""
        return [_OPEN, *sorted(filter(None, self._vocabulary.control_texts()), key=len, reverse=True)]

    @cached_property
    def _marks(self) -> dict[str, str]:
        return {spelling: f"{_OPEN}{number}{_CLOSE}" for number, spelling in enumerate(self._spellings)}

    @cached_property
    def _any_spelling(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._spellings)))

    def escape(self, text: str) -> str:
        """A user's text with marks in place of spellings."""
        return self._any_spelling.sub(lambda match: self._marks[match[0]], text)

    def escape_all(self, value: Any) -> Any:
        """A JSON value with all its strings escaped, names of members too."""
        match value:
            case str():
                return self.escape(value)
            case dict():
                return {self.escape(str(name)): self.escape_all(member) for name, member in value.items()}
            case list() | tuple():
                return [self.escape_all(item) for item in value]
            case _:
                return value

    def plain(self, text: str) -> str:
        """The template's text, with what the marks stand for in their place."""
        return _MARK.sub(lambda mark: self._spelling(mark[1]), text)

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Tokenise the template's own text with control tokens, and what the marks stand for as plain characters."""
        tokens: list[int] = []
        for index, part in enumerate(_MARK.split(text)):
            if index % 2:
                tokens += self._vocabulary.tokenize(
                    self._spelling(part), add_special=False, parse_special=False
                )
            elif part or not index:
                tokens += self._vocabulary.tokenize(
                    part, add_special=add_special and not index, parse_special=True
                )
        return tokens

    def _spelling(self, number: str) -> str:
        """What a mark stands for; out of range where the template wrote a mark of its own."""
        index = int(number)
        return self._spellings[index] if index < len(self._spellings) else f"{_OPEN}{number}{_CLOSE}"
