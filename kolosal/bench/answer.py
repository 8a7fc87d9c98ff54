"""One answer: its text, its token counts, and when each piece of it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from kolosal.bench.errors import BenchError

MAX_MESSAGE_CHARS = 300
"""Characters shown of a server's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer. Times are of one monotonic clock, in seconds."""

    text: str
    sent_at: float
    arrivals: tuple[float, ...]
    """When each piece of text arrived; a piece can be several tokens. Never empty."""
    ended_at: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None

    @property
    def ttft_s(self) -> float:
        """Seconds from the request to the first piece of text."""
        return self.arrivals[0] - self.sent_at

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]

    @property
    def decode_tok_s(self) -> float | None:
        """Tokens per second after the first one; None where there is no count or no time between."""
        seconds = self.arrivals[-1] - self.arrivals[0]
        if self.completion_tokens is None or self.completion_tokens < 2 or seconds <= 0:
            return None
        return (self.completion_tokens - 1) / seconds

    def gaps_within(self, start: float, end: float) -> list[float]:
        """The gaps of which any part lies between two moments."""
        return [
            later - earlier for earlier, later in pairwise(self.arrivals) if later > start and earlier < end
        ]


class AnswerBuilder:
    """Takes the events of one answer in order."""

    def __init__(self, sent_at: float) -> None:
        self._sent_at = sent_at
        self._pieces: list[str] = []
        self._arrivals: list[float] = []
        self._usage: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._done = False

    def add(self, arrived_at: float, data: bytes) -> None:
        """Take the data of one event.

        Raises:
            BenchError: it says that generating failed, or is not JSON.
        """
        if data == b"[DONE]":
            self._done = True
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise BenchError("the server sent an event that is not JSON") from None
        if not isinstance(event, dict):
            raise BenchError("the server sent an event that is not an object")
        if event.get("error"):
            raise BenchError(f"the server failed during the answer: {error_message(data)}")
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            self._take(arrived_at, choice)

    def _take(self, arrived_at: float, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        piece = delta.get("content") or choice.get("text") or ""
        if piece or delta.get("reasoning_content"):
            self._pieces.append(piece)
            self._arrivals.append(arrived_at)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def complete(self, ended_at: float, *, cleanly: bool) -> Answer:
        """The answer.

        Raises:
            BenchError: it ended early or has no text.
        """
        if not self._done and not (cleanly and self._finish_reason):
            raise BenchError("the server closed the connection before the answer's end")
        if not self._arrivals:
            raise BenchError("the answer has no text")
        details = self._usage.get("prompt_tokens_details") or {}
        return Answer(
            text="".join(self._pieces),
            sent_at=self._sent_at,
            arrivals=tuple(self._arrivals),
            ended_at=ended_at,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
            cached_tokens=details.get("cached_tokens"),
            finish_reason=self._finish_reason,
        )


def error_message(body: bytes) -> str:
    """The words of an error body, whatever its shape."""
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError:
        error = body.decode(errors="replace")
    while isinstance(error, dict):
        error = error.get("error") or error.get("message") or error.get("detail")
    words = " ".join(str(error or "").split())
    return words[:MAX_MESSAGE_CHARS] or "no reason given"
