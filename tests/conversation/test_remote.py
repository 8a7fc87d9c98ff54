"""A model of a running daemon, asked over its real HTTP API; here the application answers without a socket."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette

from kolosal.conversation import ConversationEngine
from kolosal.conversation.inputs import prepare_inputs
from kolosal.conversation.model import Model
from kolosal.conversation.remote import DaemonHost
from kolosal.conversation.tokenizer import Tokenizer
from kolosal.errors import ContextLengthExceeded, EngineDied, KolosalError, LoadFailed, NotFound, QueueFull
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, Message, TokensPrompt
from tests.fakes import FakeEngine, app_with, says
from tests.routes.conversation.chats import DRAFT, REVIEW1, REVIEW2, in_turn

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
PROMPTS = {"assistant": "Answer.", "reviser": "Revise."}
PROMPT = ChatPrompt((Message("user", "Hi"),))


class Application(httpx.BaseTransport):
    """Each request has an event loop of its own; answers come whole."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._handle(request))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        sent = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        async with httpx.ASGITransport(app=self._app) as transport:
            answer = await transport.handle_async_request(sent)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


def daemon(engine: FakeEngine, engine_id: str = "fake") -> DaemonHost:
    return DaemonHost("http://localhost", engine_id, transport=Application(app_with(engine)))


def canned(status: int, content: bytes) -> DaemonHost:
    """A daemon that answers everything alike."""
    return DaemonHost(
        "http://localhost",
        "fake",
        transport=httpx.MockTransport(lambda _: httpx.Response(status, headers=EVENTS, content=content)),
    )


def test_events_that_are_compressed_are_not_read() -> None:
    """A few kilobytes of them can be gigabytes."""
    headers = EVENTS | {"content-encoding": "gzip"}
    answers = httpx.MockTransport(
        lambda _: httpx.Response(200, headers=headers, stream=httpx.ByteStream(gzip.compress(b"data: x\n\n")))
    )
    host = DaemonHost("http://localhost", "fake", transport=answers)

    with pytest.raises(EngineDied, match="not a Kolosal daemon"):
        list(host.stream(PROMPT, SamplingParams()))


def test_a_conversation_with_a_daemon() -> None:
    engine = FakeEngine(script=in_turn(DRAFT, REVIEW1, REVIEW2))
    host = daemon(engine)
    talk = ConversationEngine(Tokenizer(host), Model(host), PROMPTS, improvement=True)

    assert "".join(talk.stream_reply("Why?")).endswith("The sky scatters blue light.")
    assert talk.last_result["draft_answer"] == DRAFT
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.7, 0.9, 4096)
    host.close()


def test_tokens_go_to_a_daemon() -> None:
    engine = FakeEngine(script=says("Hé", "llo"))
    host = daemon(engine)
    tok, model = Tokenizer(host), Model(host)

    inputs = prepare_inputs(tok, model, PROMPTS, "Why?")
    output = model.generate(**inputs, max_new_tokens=9)

    assert isinstance(engine.requests[0].prompt, TokensPrompt)
    assert tok.decode(output) == "Answer.|Why?Héllo"
    host.close()


def test_a_daemon_says_whether_it_has_an_engine() -> None:
    with_one, without = daemon(FakeEngine()), daemon(FakeEngine(), "other")

    assert (with_one.exists(), without.exists()) == (True, False)
    with pytest.raises(NotFound, match="other"):
        list(without.stream(PROMPT, SamplingParams()))
    with pytest.raises(KolosalError, match="does not exist"):
        without.add("/nowhere/other.gguf", {"n_ctx": 64})
    with_one.close()
    without.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (QueueFull("Too many"), QueueFull),
        (ContextLengthExceeded("Too long"), ContextLengthExceeded),
        (EngineDied("It died"), EngineDied),
    ],
)
def test_errors_of_a_daemon_are_our_own(error: KolosalError, kind: type[KolosalError]) -> None:
    engine = FakeEngine()
    engine.refusal = error
    host = daemon(engine)

    with pytest.raises(kind, match=error.message):
        list(host.stream(PROMPT, SamplingParams()))
    host.close()


def test_an_answer_that_breaks_off_is_an_error() -> None:
    host = daemon(FakeEngine(script=in_turn(EngineDied("It died"))))
    pieces: list[str] = []

    with pytest.raises(EngineDied, match="It died"):
        pieces.extend(host.stream(PROMPT, SamplingParams()))
    assert pieces == ["Half an "]
    host.close()


@pytest.mark.parametrize("content", [b"", b"data: {}\n\n", b": ping\n\n"])
def test_an_answer_without_an_end_is_an_error(content: bytes) -> None:
    host = canned(200, content)
    with pytest.raises(EngineDied, match="ended the answer early"):
        list(host.stream(PROMPT, SamplingParams()))
    host.close()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error": 5}', b'{"detail": "x"}'])
def test_what_is_no_daemon_is_an_error(body: bytes) -> None:
    host = canned(502, body)
    with pytest.raises(EngineDied, match="HTTP 502"):
        host.detokenize([1])
    host.close()


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"data: <html>\n\n"])
def test_what_answers_something_else_is_no_daemon(content: bytes) -> None:
    host = canned(200, content)
    with pytest.raises(EngineDied, match="no daemon"):
        host.render(PROMPT)
    host.close()


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    error: dict[str, Any] = {"message": "No such tensor", "code": "model_loading_failed"}
    host = canned(422, orjson.dumps({"error": error}))
    with pytest.raises(LoadFailed, match="No such tensor"):
        host.add("a.gguf", {})
    host.close()


def test_a_daemon_that_is_not_there_is_an_error() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    host = DaemonHost("http://localhost", "fake", transport=httpx.MockTransport(refuse))
    with pytest.raises(EngineDied, match="does not answer: refused"):
        host.exists()
    host.close()
