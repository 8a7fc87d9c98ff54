"""One server and the requests to it: each is sent on its own connection and timed where its bytes arrive.

While an answer streams, arrivals are noted and nothing else is done; `answer_reader` decodes it when it is complete. Owns no
workloads and no statistics.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11
import orjson

from kolosal.bench.answer import Answer
from kolosal.bench.answer_reader import AnswerReader
from kolosal.bench.errors import BenchError, Refused, Unreachable

_BAD_REQUEST = (400, 422)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is measured."""

    url: str
    """Base of the API, such as http://127.0.0.1:8080/v1."""
    model: str = ""
    api_key: str | None = None
    timeout_s: float = 600.0
    """Bounds one request, from connecting to its last byte."""
    start_command: str | None = None
    """Starts another server like it on `{port}`; for the workload that measures loading."""


class Request:
    """The path and body of one streamed generation; greedy, so that servers do the same work."""

    def __init__(self, path: str, max_tokens: int, *, fixed_length: bool = True, **fields: Any) -> None:
        self.path = path
        self.fixed_length = fixed_length
        """Go on to `max_tokens` even where the model would end."""
        self.fields: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }

    @classmethod
    def chat(cls, messages: list[dict[str, str]], max_tokens: int, **fields: Any) -> Request:
        return cls("/chat/completions", max_tokens, messages=messages, **fields)

    @classmethod
    def complete(cls, prompt: str, max_tokens: int, **fields: Any) -> Request:
        return cls("/completions", max_tokens, prompt=prompt, **fields)


class Client:
    """Sends requests to one target. `on_answer` is called after each complete answer."""

    def __init__(self, target: Target, on_answer: Callable[[], None] = lambda: None) -> None:
        self.target = target
        self.on_answer = on_answer
        self._ignore_eos = True
        address = urlsplit(target.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise BenchError(f"--url: '{target.url}' is not an address like http://127.0.0.1:8080/v1")
        self._host = address.hostname
        self._tls = address.scheme == "https"
        self._port = address.port or (443 if self._tls else 80)
        self._netloc = address.netloc.rpartition("@")[2]
        self._base = address.path.rstrip("/")

    async def probe(self) -> None:
        """Ask for one token: the server is there, knows the model, and `ignore_eos` is known to it or not."""
        hello = Request.chat([{"role": "user", "content": "Hello"}], 1)
        try:
            await self._send(hello)
        except Refused as exc:
            if exc.status not in _BAD_REQUEST:
                raise
            self._ignore_eos = False  # the official API refuses fields that it does not know
            await self._send(hello)

    async def ask(self, request: Request, streaming: asyncio.Event | None = None) -> Answer:
        """The complete answer; `streaming` is set when its first text is there."""
        answer = await self._send(request, streaming)
        self.on_answer()
        return answer

    async def _send(self, request: Request, streaming: asyncio.Event | None = None) -> Answer:
        exchange = _Exchange(*self._bytes_of(request), streaming or asyncio.Event())
        try:
            async with asyncio.timeout(self.target.timeout_s):
                await self._connect(exchange)
                await exchange.closed
        except TimeoutError:
            raise BenchError(f"no complete answer within {self.target.timeout_s:g} s") from None
        finally:
            exchange.abort()
        return exchange.answer()

    async def _connect(self, exchange: _Exchange) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: exchange, self._host, self._port, ssl=True if self._tls else None
            )
        except OSError as exc:
            where = f"{self._host} port {self._port}"
            raise Unreachable(f"nothing answers at {where} ({exc.strerror or exc})") from exc

    def _bytes_of(self, request: Request) -> tuple[bytes, h11.Connection]:
        """What to send, and the connection that reads the answer to it."""
        fields = {"model": self.target.model, **request.fields}
        if request.fixed_length and self._ignore_eos:
            fields["ignore_eos"] = True
        body = orjson.dumps(fields)
        headers = [
            (b"Host", self._netloc.encode()),
            (b"Content-Type", b"application/json"),
            (b"Accept", b"text/event-stream"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Connection", b"close"),
        ]
        if self.target.api_key:
            headers.append((b"Authorization", b"Bearer " + self.target.api_key.encode()))
        connection = h11.Connection(h11.CLIENT)
        try:
            head = h11.Request(method="POST", target=f"{self._base}{request.path}", headers=headers)
        except (h11.LocalProtocolError, UnicodeError) as exc:
            raise BenchError(f"--url or --api-key: cannot stand in an HTTP request ({exc})") from exc
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(connection.send(event) or b"" for event in events), connection


class _Exchange(asyncio.Protocol):
    """One request and the arrivals of its answer."""

    def __init__(self, request: bytes, connection: h11.Connection, streaming: asyncio.Event) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._connection = connection
        self._streaming = streaming
        self._transport: asyncio.Transport | None = None
        self._sent_at = time.perf_counter()
        self._arrivals: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream connection gives
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._arrivals.append((time.perf_counter(), data))
        if not self._streaming.is_set() and _has_text(data):
            self._streaming.set()
        if data.endswith(b"0\r\n\r\n") and (len(data) == 5 or data.endswith(b"\r\n0\r\n\r\n")):
            self._done()  # the last chunk: some servers keep the connection open nevertheless

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # an early end shows in what has arrived
        self._done()

    def abort(self) -> None:
        """Close the connection. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def answer(self) -> Answer:
        """What has arrived, decoded."""
        reader = AnswerReader(self._connection, self._sent_at)
        for arrived_at, data in self._arrivals:
            reader.feed(arrived_at, data)
        return reader.answer()

    def _done(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def _has_text(data: bytes) -> bool:
    """Whether these bytes hold a piece of text that is not empty: good enough for events, which arrive whole."""
    for field in (b'"content":"', b'"text":"', b'"reasoning_content":"'):
        at = data.find(field)
        if at >= 0 and data[at + len(field) : at + len(field) + 1] not in (b"", b'"'):
            return True
    return False
