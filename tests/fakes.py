"""Engines without a process, and an ASGI client that sees every step: for tests of what is above the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from kolosal.app import create_app
from kolosal.cluster.view import (
    ClusterView,
    EngineReplicas,
    NodeState,
    NodeView,
    ReplicaState,
    ReplicaView,
)
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import (
    Call,
    CallResult,
    Detokenize,
    Embed,
    Embedded,
    Rank,
    Ranked,
    Render,
    Rendered,
    Tokenize,
    Tokenized,
)
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.engines.stream import RequestStream
from kolosal.errors import KolosalError
from kolosal.schema import ChatPrompt, FinishReason, GenerateRequest, TokenDelta, Usage
from tests.settings import settings_of, with_settings

Script = Callable[[GenerateRequest], Iterable[TokenDelta | KolosalError]]


def says(*pieces: str, finish: FinishReason = FinishReason.STOP, usage: Usage | None = None) -> Script:
    """A script that gives these pieces and ends."""

    def script(_request: GenerateRequest) -> Iterable[TokenDelta]:
        for piece in pieces:
            yield TokenDelta(piece)
        yield TokenDelta("", (), finish, usage or Usage(3, len(pieces)))

    return script


def plain_answer(call: Call) -> CallResult | KolosalError:
    """What a model of bytes would answer: a token for each byte, prompts rendered as what was said, tiny vectors."""
    match call:
        case Tokenize(text=text, with_pieces=with_pieces):
            data = text.encode()
            return Tokenized(tuple(data), tuple(chr(byte) for byte in data) if with_pieces else ())
        case Detokenize(tokens=tokens):
            return Rendered(bytes(token % 256 for token in tokens).decode(errors="replace"), len(tokens))
        case Render(prompt=prompt, with_tokens=with_tokens):
            turns = prompt.messages if isinstance(prompt, ChatPrompt) else ()
            text = "|".join(turn.content for turn in turns) if turns else str(prompt)
            return Rendered(text, len(text), tuple(text.encode()) if with_tokens else ())
        case Embed(inputs=inputs):
            return Embedded(("AACAPwAAAAA=",) * len(inputs), (3,) * len(inputs))  # [1, 0]
        case Rank(documents=documents):
            return Ranked(tuple(float(len(document)) for document in documents), 5)


class FakeEngine(Engine):
    """An engine that plays a script. Without a script the test feeds `streams` itself."""

    def __init__(self, engine_id: str = "fake", script: Script | None = None) -> None:
        config = EngineConfig(engine_id, f"/models/{engine_id}.gguf", LoadingParameters())
        super().__init__(config, WorkerCommand())
        self.state = EngineState.READY
        self.script = script
        self.load_error: KolosalError | None = None
        self.loading: asyncio.Event | None = None
        """Where there is one, loading lasts until it is set."""
        self.is_waited_for = asyncio.Event()
        """Whether somebody waits for it to be loaded."""
        self.refusal: KolosalError | None = None
        self.refuse_from = 0
        """The `refusal` is raised for this request and all later ones."""
        self.requests: list[GenerateRequest] = []
        self.streams: list[RequestStream] = []
        self.aborted: list[int] = []
        self.calls: list[Call] = []
        """What was asked besides generating; `answer` says what it is answered."""
        self.answer: Callable[[Call], CallResult | KolosalError] = plain_answer
        self.submitted = asyncio.Event()
        self._feeders: set[asyncio.Task[None]] = set()

    async def ensure_ready(self) -> None:
        if self.loading is not None:
            self.is_waited_for.set()
            await self.loading.wait()
        if self.load_error is not None:
            raise self.load_error

    def generate(self, request: GenerateRequest) -> RequestStream:
        index = len(self.streams)
        if self.refusal is not None and index >= self.refuse_from:
            raise self.refusal
        stream = RequestStream(lambda: self.aborted.append(index), self.observer.begin(self.engine_id))
        self.requests.append(request)
        self.streams.append(stream)
        self.submitted.set()
        if self.script is not None:
            feeder = asyncio.create_task(_feed(stream, self.script(request)))
            self._feeders.add(feeder)
            feeder.add_done_callback(self._feeders.discard)
        return stream

    async def call(self, call: Call) -> CallResult:
        self.calls.append(call)
        answer = self.answer(call)
        if isinstance(answer, KolosalError):
            raise answer
        return answer


async def _feed(stream: RequestStream, items: Iterable[TokenDelta | KolosalError]) -> None:
    """One event at a time, each when the last was taken, so that nothing is merged."""
    for item in items:
        await eventually(lambda: stream._pending is None or stream._finished)
        if stream._finished:
            return
        if isinstance(item, KolosalError):
            stream.fail(item)
        else:
            stream.put(item)


class FakeRegistry(EngineRegistry):
    """A registry of given engines."""

    def __init__(self, *engines: Engine, default_engine: str | None = None) -> None:
        super().__init__(with_settings(WorkerCommand(), max_queued=0), default_engine=default_engine)
        self._engines = {engine.engine_id: engine for engine in engines}
        for engine in engines:
            engine.observer = self.observer
            self.observer.engine_state(engine.engine_id, engine.state, None, None)


async def eventually(condition: Callable[[], object]) -> None:
    """Let others run until something is so. Ends with the test's timeout at the latest."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)


class FakeCluster:
    """Two machines, one of which is gone, and an engine `far` with a replica that is ready and one that has no place yet."""

    def __init__(self) -> None:
        self.drained: list[str] = []

    def view(self) -> ClusterView:
        gib = 1 << 30
        nodes = (
            NodeView("n1", "10.0.0.1", NodeState.ALIVE, True, 8, 4, 0, 0, 32 * gib, 21 * gib),
            NodeView("n2", "10.0.0.2", NodeState.DEAD, False, 16, 12, 1, 0, 64 * gib, 55 * gib),
        )
        replicas = (
            ReplicaView("r1", ReplicaState.READY, "n1", "10.0.0.1", 2, 910),
            ReplicaView("r2", ReplicaState.STARTING, None, None, 0, 0),
        )
        return ClusterView("10.0.0.1:6379", 0.5, nodes, (EngineReplicas("far", 1, 4, replicas),))

    async def drain(self, node: str) -> None:
        self.drained.append(node)


def app_with(*engines: Engine, default_engine: str | None = None, **settings: Any) -> Starlette:
    """The real application over these engines."""
    return create_app(settings_of(**settings), FakeRegistry(*engines, default_engine=default_engine))


def http_client(app: ASGIApp, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """Talks to an application without a socket. Bodies of streams come whole."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


class AsgiRequest:
    """One request driven by hand: the test sees each message at once and decides when the client leaves."""

    def __init__(self, path: str = "/", body: object = None, method: str = "POST") -> None:
        self.scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "scheme": "http", "headers": [], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        self.sent: list[Message] = []
        self.arrived = asyncio.Event()
        """Set at every message."""
        self._body: bytes | None = orjson.dumps(body)
        self._left = asyncio.Event()

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.arrived.set()

    async def until(self, content: bytes) -> None:
        """Wait until this was sent."""
        while content not in self.content:
            self.arrived.clear()
            await self.arrived.wait()

    def start(self, app: ASGIApp) -> asyncio.Task[None]:
        """Have an application answer."""
        return asyncio.create_task(self._run(app))

    async def _run(self, app: ASGIApp) -> None:
        await app(self.scope, self.receive, self.send)
