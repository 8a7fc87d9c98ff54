"""An OpenAI-compatible server over a real socket whose answers are scripted: one word a token, as fast as it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

Body = dict[str, Any]

ORDER = {
    "customer_name": "Ada",
    "delivery_city": "Turin",
    "status": "packed",
    "priority": 2,
    "is_gift": False,
    "items": [{"name": f"lamp {i}", "quantity": 1, "price_cents": 100} for i in range(2)],
    "comment": "",
}


class StubServer:
    """Scripted by its attributes. Chunked transfer, one event a chunk, as real servers send them."""

    def __init__(self) -> None:
        self.port = 0
        self.bodies: list[tuple[str, Body]] = []
        self.refusals: list[tuple[int, Body]] = []
        """Answers to the next requests for text, in order."""
        self.cut_after: int | None = None
        """Close the connection after so many events."""
        self.error_after: int | None = None
        self.with_usage = True
        self.refuses_unknown = False
        self.json_answer: object = ORDER
        self.engine: Body | None = None
        """What `GET /engines/…` gives: with it, this is a Kolosal daemon."""
        self.engine_calls: list[tuple[str, str]] = []
        self.open_streams = 0
        self.most_streams = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def prompts(self) -> list[str]:
        return [
            body["prompt"] if "prompt" in body else body["messages"][0]["content"] for _, body in self.bodies
        ]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split(" ", 2)
            lengths = [
                line.split(":")[1] for line in head.lower().split("\r\n") if line.startswith("content-length")
            ]
            content = await reader.readexactly(int(lengths[0])) if lengths else b""
            await self._serve(writer, method, path, json.loads(content) if content else {})
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, writer: asyncio.StreamWriter, method: str, path: str, body: Body) -> None:
        if path in ("/v1/chat/completions", "/v1/completions"):
            await self._generate(writer, path, body)
        elif path == "/v1/models":
            _send(writer, 200, {"data": [{"id": "stub"}]})
        elif self.engine is not None and path.startswith("/engines"):
            self.engine_calls.append((method, path))
            _send(writer, 201 if method == "POST" else 200, self.engine)
        else:
            _send(writer, 404, {"error": {"message": "no such path"}})

    async def _generate(self, writer: asyncio.StreamWriter, path: str, body: Body) -> None:
        if self.refuses_unknown and "ignore_eos" in body:
            return _send(writer, 400, {"error": {"message": "Unrecognized request argument: ignore_eos"}})
        if self.refusals:
            return _send(writer, *self.refusals.pop(0))
        self.bodies.append((path, body))
        self.open_streams += 1
        self.most_streams = max(self.most_streams, self.open_streams)
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number, data in enumerate(self._events(path, body)):
            if number == self.cut_after:
                break
            failure = json.dumps({"error": {"message": "the worker died"}})
            event = f"data: {failure if number == self.error_after else data}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0)
        else:
            writer.write(b"0\r\n\r\n")
        self.open_streams -= 1
        return None

    def _events(self, path: str, body: Body) -> list[str]:
        words = [f"word{i} " for i in range(body["max_tokens"])]
        if "response_format" in body:
            words = [json.dumps(self.json_answer)]
        events: list[Body] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
        for word in words:
            piece = {"text": word} if path == "/v1/completions" else {"delta": {"content": word}}
            events.append({"choices": [piece]})
        events.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
        if self.with_usage:
            details = {"cached_tokens": 3}
            counts = {"prompt_tokens": 10, "completion_tokens": len(words), "prompt_tokens_details": details}
            events.append({"choices": [], "usage": counts})
        return [*(json.dumps(event, separators=(",", ":")) for event in events), "[DONE]"]


@asynccontextmanager
async def stub_server() -> AsyncIterator[StubServer]:
    """A stub that listens on a free port."""
    stub = StubServer()
    server = await asyncio.start_server(stub._connected, "127.0.0.1", 0)
    stub.port = server.sockets[0].getsockname()[1]
    try:
        yield stub
    finally:
        server.close()
        await server.wait_closed()


def _send(writer: asyncio.StreamWriter, status: int, body: Body) -> None:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + content)
