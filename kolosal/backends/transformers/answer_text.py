"""AnswerText: tokens of a Hugging Face tokenizer → text, a piece at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNFINISHED = "\ufffd"


class AnswerText:
    """The text of one answer. A token may be part of a character, and decoders look at the tokens before: so a few of those are decoded
    again with each, and what is new is what they add."""

    def __init__(self, tokenizer: Any, markers: Mapping[int, str]) -> None:
        """`markers`: control tokens that are shown, and as what."""
        self._tokenizer = tokenizer
        self._markers = markers
        self._tokens: list[int] = []
        self._shown_to = 0  # of `_tokens`: those before are shown
        self._since = 0  # those from here on are decoded

    def push(self, token: int) -> str:
        """What a token adds."""
        if token in self._markers:
            self._since = self._shown_to = len(self._tokens)
            return self._markers[token]
        self._tokens.append(token)
        before = self._decode(self._tokens[self._since : self._shown_to])
        after = self._decode(self._tokens[self._since :])
        if after.endswith(_UNFINISHED) and len(self._tokens) - self._shown_to < 4:
            return ""
        self._since, self._shown_to = self._shown_to, len(self._tokens)
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
