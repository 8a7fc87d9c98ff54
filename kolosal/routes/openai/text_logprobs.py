"""The `logprobs` of a completion: four lists, one element a token, and where each token's text begins.

Pure. Offsets count characters of the text a client gets, although tokens are bytes: a token may hold a part of a
character, or several.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from kolosal.schema import TokenLogprob, TokenLogprobs


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
            made = self._decoder.decode(data[:1])
            # One whole character and nothing left over: the byte was its last. Nothing yet: it goes on. Else what was
            # incomplete can only be shown as U+FFFD, and the token begins behind that.
            continues = not made or (len(made) == 1 and not self._decoder.getstate()[0])
            offset += 0 if continues else 1
            self.n_chars += len(made)
            data = data[1:]
        self.n_chars += len(self._decoder.decode(data))
        return offset


class TextLogprobs:
    """Fills in the `logprobs` of one choice; a stream's chunks are continued where the last one ended."""

    def __init__(self, echo: str = "") -> None:
        """`echo` is the prompt's text where the choice begins with it, else empty."""
        self._echo = echo
        self._offsets = OffsetCounter()
        self._echoing = bool(echo)
        self._first_text = True
        self._begun = False

    def body(self, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """The next tokens' lists. The first token of an echoed prompt has null for what cannot be known."""
        body: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for entry in entries:
            unknown = entry.in_prompt and not self._begun
            self._begun = True
            body["text_offset"].append(self._offset(entry))
            body["tokens"].append(_name(entry.chosen))
            body["token_logprobs"].append(None if unknown else entry.chosen.logprob)
            body["top_logprobs"].append(None if unknown else _top(entry))
        return body

    def _offset(self, entry: TokenLogprobs) -> int:
        if self._echoing and not entry.in_prompt:
            self._echoing = False
            self._offsets = OffsetCounter()
            self._offsets.n_chars = len(self._echo)
        return self._offsets.add(self._shown(entry))

    def _shown(self, entry: TokenLogprobs) -> bytes:
        """The bytes of a token that are in the text.

        A prompt may spell control tokens, which add nothing to an answer. And some tokenisers put a blank before the first
        word, which the prompt does not have.
        """
        chance = entry.chosen
        if not entry.in_prompt:
            return chance.data
        if chance.control:
            spelled = self._echo.startswith(chance.written.decode(errors="replace"), self._offsets.n_chars)
            return chance.written if spelled else b""
        if self._first_text and chance.data:
            self._first_text = False
            if chance.data.startswith(b" ") and not self._echo.startswith(" ", self._offsets.n_chars):
                return chance.data[1:]
        return chance.data


def _name(chance: TokenLogprob) -> str:
    """A token as the API writes it; what is no text by itself is written `bytes:` and its bytes."""
    try:
        return chance.written.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in chance.written)


def _top(entry: TokenLogprobs) -> dict[str, float]:
    """The most probable tokens in this place, and always the token itself."""
    top: dict[str, float] = {}
    for chance in (*entry.top, entry.chosen):
        top.setdefault(
            _name(chance), chance.logprob
        )  # two tokens may have the same text: the more probable one counts
    return top
