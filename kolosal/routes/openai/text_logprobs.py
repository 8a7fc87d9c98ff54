"""The `logprobs` of a completion: four lists, one element a token, and where each token's text begins.

Pure. Offsets count characters of the text a client gets, although tokens are bytes: a token may hold a part of a
character, or several.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from typing_extensions import TypedDict

from kolosal.schema import TokenLogprob, TokenLogprobs


class TextLogprobs(TypedDict):
    """Log-probabilities in the older shape: four arrays, one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where each token begins in the text, in characters."""


class OffsetCounter:
    """Where tokens begin in the text their bytes make, in characters. Bytes that are no UTF-8 are a U+FFFD each."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.n_chars = 0
        """Whole characters so far."""

    def add(self, data: bytes) -> int:
        """The offset of the next token, whose bytes these are: of the character that it begins with, or continues."""
        offset = self.n_chars
        if self._decoder.getstate()[0] and data:
            decoded = self._decoder.decode(data[:1])
            # One whole character and nothing left over: the byte was its last. Nothing yet: it goes on. Else what was
            # incomplete can only be written as U+FFFD, and the token begins behind that.
            continues = not decoded or (len(decoded) == 1 and not self._decoder.getstate()[0])
            offset += 0 if continues else 1
            self.n_chars += len(decoded)
            data = data[1:]
        self.n_chars += len(self._decoder.decode(data))
        return offset


class TextLogprobsWriter:
    """Writes the `logprobs` of one choice; a stream's chunks are continued where the last one ended."""

    def __init__(self, echo: str = "") -> None:
        """`echo` is the prompt's text where the choice begins with it, else empty."""
        self._echo = echo
        self._offsets = OffsetCounter()
        self._echoing = bool(echo)
        self._first_text = True
        self._begun = False

    def write(self, entries: Sequence[TokenLogprobs]) -> TextLogprobs:
        """The next tokens' lists. The first token of an echoed prompt has null for what cannot be known."""
        lists: TextLogprobs = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            unknown = entry.in_prompt and not self._begun
            self._begun = True
            lists["text_offset"].append(self._offset(entry))
            lists["tokens"].append(_spelling(entry.chosen))
            lists["token_logprobs"].append(None if unknown else entry.chosen.logprob)
            lists["top_logprobs"].append(None if unknown else _top_logprobs(entry))
        return lists

    def _offset(self, entry: TokenLogprobs) -> int:
        if self._echoing and not entry.in_prompt:
            self._echoing = False
            self._offsets = OffsetCounter()
            self._offsets.n_chars = len(self._echo)
        return self._offsets.add(self._bytes_in_text(entry))

    def _bytes_in_text(self, entry: TokenLogprobs) -> bytes:
        """The bytes of a token that are in the text.

        A prompt may spell control tokens, which add nothing to an answer. And some tokenisers put a blank before the first
        word, which the prompt does not have.
        """
        token = entry.chosen
        if not entry.in_prompt:
            return token.data
        if token.control:
            spelled = self._echo.startswith(token.written.decode(errors="replace"), self._offsets.n_chars)
            return token.written if spelled else b""
        if self._first_text and token.data:
            self._first_text = False
            if token.data.startswith(b" ") and not self._echo.startswith(" ", self._offsets.n_chars):
                return token.data[1:]
        return token.data


def _spelling(token: TokenLogprob) -> str:
    """A token as the API writes it; what is no text by itself is written `bytes:` and its bytes."""
    try:
        return token.written.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.written)


def _top_logprobs(entry: TokenLogprobs) -> dict[str, float]:
    """The most probable tokens in this place, and always the token itself."""
    top: dict[str, float] = {}
    for token in (*entry.top, entry.chosen):
        # two tokens may have the same text: the more probable one counts
        top.setdefault(_spelling(token), token.logprob)
    return top
