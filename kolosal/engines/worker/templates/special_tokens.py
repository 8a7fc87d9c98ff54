"""Special-token escaping: where a user spells a control token, it stays text and never becomes the token."""

from __future__ import annotations

import re
from typing import Any

from kolosal.engines.worker.backend import Backend

# A private-use pair: no tokenizer of the field gives these a meaning, and a template passes them through.
_OPEN, _CLOSE = "\uf8fe", "\uf8ff"
_MARK = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")

END_MARK = f"{_OPEN}end{_CLOSE}"
"""Put at the end of a text to find it again in what a template makes; no text of a user can hold it."""


class SpecialTokenEscaper:
    """Finds spellings of the control tokens of one vocabulary."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._controls: re.Pattern[str] | None = None

    def new_conversation(self) -> EscapedTexts:
        """Escape the texts of one conversation."""
        return EscapedTexts(self._backend, self._control_pattern())

    def _control_pattern(self) -> re.Pattern[str]:
        if self._controls is None:  # on first use: it looks at every token of the vocabulary
            texts = sorted((text for text in self._backend.control_texts() if text), key=len, reverse=True)
            alternatives = [re.escape(text) for text in texts]
            self._controls = re.compile("|".join([_OPEN, *alternatives]))
        return self._controls


class EscapedTexts:
    """The texts of one conversation, in which numbered marks stand for the spellings of control tokens."""

    def __init__(self, backend: Backend, controls: re.Pattern[str]) -> None:
        self._backend = backend
        self._controls = controls
        self._spellings: list[str] = []

    def escape(self, text: str) -> str:
        """Replace each spelling of a control token by a numbered mark, so that the template passes it through.

        A mark's first character is replaced too, so that no text of a user can make a mark.
        """
        return self._controls.sub(self._mark, text)

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

    def _mark(self, match: re.Match[str]) -> str:
        self._spellings.append(match[0])
        return f"{_OPEN}{len(self._spellings) - 1}{_CLOSE}"

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Tokenise the template's own text with control tokens, and what the marks stand for as plain characters."""
        if not self._spellings:
            return self._backend.tokenize(text, add_special=add_special, parse_special=True)
        tokens: list[int] = []
        for index, part in enumerate(_MARK.split(text)):
            if index % 2:
                tokens += self._backend.tokenize(self._spelling(part), add_special=False, parse_special=False)
            elif part or not index:
                tokens += self._backend.tokenize(
                    part, add_special=add_special and not index, parse_special=True
                )
        return tokens

    def _spelling(self, number: str) -> str:
        """What a mark stands for; out of range where the template wrote a mark of its own."""
        index = int(number)
        return self._spellings[index] if index < len(self._spellings) else f"{_OPEN}{number}{_CLOSE}"
