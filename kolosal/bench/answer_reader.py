"""AnswerReader: a streamed answer out of the bytes that arrived, when all are there.

While an answer comes its bytes are noted and nothing else: a client that reads meanwhile costs more processor time per
token than the server under test may spend on it, and both run on the same machine.
"""

from __future__ import annotations

from typing import Any

import h11
import orjson

from kolosal.bench.answer import Answer
from kolosal.bench.errors import BenchError, Refused, Unreachable

MAX_MESSAGE_CHARS = 300
"""Characters shown of a server's error."""


class AnswerReader:
    """Takes the bytes of one response in order. `connection` has sent the request."""

    def __init__(self, connection: h11.Connection, sent_at: float) -> None:
        self._connection = connection
        self._sent_at = sent_at
        self._ended_at = sent_at
        self._status: int | None = None
        self._body = bytearray()
        """Of a response that is an error."""
        self._line = b""
        self._pieces: list[str] = []
        self._arrivals: list[float] = []
        self._usage: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._done = False
        """The protocol's own end was seen."""

    def feed(self, arrived_at: float, data: bytes) -> None:
        """Take what arrived at once."""
        self._ended_at = arrived_at
        self._connection.receive_data(data)
        try:
            while isinstance(event := self._connection.next_event(), h11.Event):
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                elif isinstance(event, h11.Data) and self._status == 200:
                    *lines, self._line = (self._line + event.data).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data:"):
                            self._take_event(arrived_at, line[5:].strip())
                elif isinstance(event, h11.Data):
                    self._body += event.data
        except h11.RemoteProtocolError:
            if self._status is None:
                raise BenchError("what answers at this address does not speak HTTP/1.1") from None
            raise BenchError("the server sent a malformed chunk") from None

    def _take_event(self, arrived_at: float, data: bytes) -> None:
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
            delta = choice.get("delta") or {}
            piece = delta.get("content") or choice.get("text") or ""
            if piece or delta.get("reasoning_content"):
                self._pieces.append(piece)
                self._arrivals.append(arrived_at)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def answer(self) -> Answer:
        """The answer."""
        if self._status is None:
            raise Unreachable("the server closed the connection without an answer")
        if self._status != 200:
            raise Refused(self._status, error_message(bytes(self._body)))
        body_ended = self._connection.their_state is not h11.SEND_BODY
        if not self._done and not (body_ended and self._finish_reason):
            raise BenchError("the server closed the connection before the answer's end")
        if not self._arrivals:
            raise BenchError("the answer has no text")
        details = self._usage.get("prompt_tokens_details") or {}
        return Answer(
            text="".join(self._pieces),
            sent_at=self._sent_at,
            arrivals=tuple(self._arrivals),
            ended_at=self._ended_at,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
            cached_tokens=details.get("cached_tokens"),
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
