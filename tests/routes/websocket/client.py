"""A WebSocket client without a socket: it sees every message, and the application knows no difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.types import ASGIApp, Message

from tests.fakes import FakeEngine, app_with, http_client

Notification = tuple[str, dict[str, Any]]


class Socket:
    """One connection."""

    def __init__(self, app: ASGIApp, session_id: str, query: str = "", key: str | None = None) -> None:
        self.session_id = session_id
        self._query = query.encode()
        self._headers = [] if key is None else [(b"x-api-key", key.encode())]
        self.closed: int | None = None
        """The code it was closed with."""
        self.task_id = ""
        """The task of the last notification that had one."""
        self._app = app
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._outgoing: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._ids = 0
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def run(self) -> None:
        path = f"/ws/{self.session_id}"
        scope = {
            "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "ws",
            "path": path, "raw_path": path.encode(), "query_string": self._query, "root_path": "", "headers": self._headers,
            "subprotocols": [], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        try:
            await self._app(scope, self._incoming.get, self._take)
        finally:
            self._outgoing.put_nowait(None)

    async def _take(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self._outgoing.put_nowait(orjson.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self.closed = message["code"]

    def leave(self) -> None:
        """Close the connection."""
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

    def say(self, text: str) -> None:
        """Send any text."""
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def say_bytes(self, data: bytes) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "bytes": data, "text": None})

    def call(self, method: str, **params: Any) -> int:
        """Send a request; its id."""
        self._ids += 1
        body = {"jsonrpc": "2.0", "method": method, "params": params, "id": self._ids}
        self.say(orjson.dumps(body).decode())
        return self._ids

    async def next(self) -> dict[str, Any]:
        """The next message."""
        message = await self._outgoing.get()
        assert message is not None, "the connection has ended"
        assert message.pop("jsonrpc") == "2.0"
        return message

    async def ended(self) -> None:
        """The connection has ended, and nothing more came."""
        assert await self._outgoing.get() is None

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a request, which must be the next message."""
        sent = self.call(method, **params)
        answer = await self.next()
        assert answer.pop("id") == sent
        return answer

    async def generate(self, **params: Any) -> None:
        """Begin to generate; returns after the acknowledgement."""
        assert await self.ask("generate", **params) == {"result": {"status": "processing"}}

    async def notification(self) -> Notification:
        """The next message, which must be a notification of this session."""
        message = await self.next()
        assert message.keys() == {"method", "params"}, message
        params = message["params"]
        assert params.pop("session_id") == self.session_id
        self.task_id = params.pop("task_id", "")
        return message["method"], params

    async def until_end(self) -> list[Notification]:
        """All notifications of the task up to `end`."""
        found: list[Notification] = []
        while not found or found[-1][0] != "end":
            found.append(await self.notification())
        assert found.pop() == ("end", {})
        return found


def chunks(notifications: list[Notification]) -> str:
    """The text of all `text_chunk`s."""
    return "".join(params["chunk"] for method, params in notifications if method == "text_chunk")


async def new_session(app: ASGIApp, key: str | None = None, **fields: Any) -> str:
    async with http_client(app, {} if key is None else {"x-api-key": key}) as client:
        response = await client.post("/create_session", json=fields)
    assert response.status_code == 200
    return str(response.json()["session_id"])


@asynccontextmanager
async def connected(app: ASGIApp, session_id: str, **carrier: Any) -> AsyncIterator[Socket]:
    """A connection to a session; `query` or `key` carries an API key."""
    socket = Socket(app, session_id, **carrier)
    running = asyncio.create_task(socket.run())
    try:
        yield socket
    finally:
        socket.leave()
        await running


@asynccontextmanager
async def session(
    engine: FakeEngine | None, settings: dict[str, Any] | None = None, **fields: Any
) -> AsyncIterator[Socket]:
    """A connection to a new session over this engine."""
    app = app_with(*(() if engine is None else (engine,)), **(settings or {}))
    async with connected(app, await new_session(app, **fields)) as socket:
        yield socket
