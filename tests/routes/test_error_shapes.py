"""X03, and every other thing that goes wrong: each protocol says it in its own shape and with its own status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from kolosal.engines.ipc.calls import Call, CallResult
from kolosal.engines.stream import RequestStream
from kolosal.errors import ContextLengthExceeded, EngineDied, KolosalError, QueueFull
from kolosal.schema import GenerateRequest, TokenDelta
from tests.fakes import FakeEngine, http_client, says
from tests.routes.chats import HELLO
from tests.routes.common.test_access import USER, app_with_keys
from tests.routes.websocket.client import connected, session

MESSAGES = HELLO["messages"]
CUT_OFF = b'{"model": "fake", '

Said = Callable[[dict[str, Any]], object]
"""What programs go by in an error's body; fails where the body has another shape than the protocol's."""


def openai(body: dict[str, Any]) -> object:
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error["type"], error["code"], error["param"]


def anthropic(body: dict[str, Any]) -> object:
    assert body.keys() - {"request_id"} == {"type", "error"}  # events of a stream have no id of their own
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    return body["error"]["type"]


def ollama(body: dict[str, Any]) -> object:
    assert body.keys() == {"error"}
    return body["error"]


def rpc(body: dict[str, Any]) -> object:
    assert body.keys() == {"jsonrpc", "error", "id"}
    assert body["error"].keys() <= {"code", "message", "data"}
    return body["error"]["code"], body["id"]


def detail(body: dict[str, Any]) -> object:
    assert body.keys() == {"detail"}
    return body["detail"]


def fields(body: dict[str, Any]) -> object:
    """The conversation paths': a text, or a list with a field's place."""
    assert body.keys() == {"detail"}
    if isinstance(body["detail"], str):
        return body["detail"]
    [error] = body["detail"]
    assert error.keys() == {"type", "loc", "msg", "input"}
    return error["type"], *error["loc"]


@dataclass(frozen=True, slots=True)
class Family:
    """How one protocol words what goes wrong: the status, and what `said` finds in the body."""

    said: Said
    no_key: tuple[int, object]
    wrong_key: tuple[int, object]
    no_model: tuple[int, object]
    no_json: tuple[int, object]
    mistyped: tuple[int, Callable[[str], object]]
    full: tuple[int, object]
    died: tuple[int, object]


_KEY = ("invalid_request_error", "invalid_api_key", None)
_ASK_FOR_KEY = "An API key is required: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
_NO_MODEL = "Model 'nobody' not found or could not be loaded"
_NO_JSON = "Invalid JSON: unexpected end of data: line 1 column 19 (char 18)"
_BUSY = "server busy, please try again.  maximum pending requests exceeded"

OPENAI = Family(
    openai, (401, _KEY), (401, _KEY), (404, ("invalid_request_error", None, None)), (400, ("invalid_request_error", None, None)),
    (400, lambda name: ("invalid_request_error", None, name)), (429, ("rate_limit_error", "queue_full", None)),
    (503, ("server_error", "engine_died", None)),
)  # fmt: skip
ANTHROPIC = Family(
    anthropic, (401, "authentication_error"), (401, "authentication_error"), (404, "not_found_error"),
    (400, "invalid_request_error"), (400, lambda _: "invalid_request_error"), (429, "rate_limit_error"),
    (529, "overloaded_error"),
)  # fmt: skip
OLLAMA = Family(
    ollama, (401, _ASK_FOR_KEY), (401, "The API key is not valid"), (404, "model 'nobody' not found"), (400, _NO_JSON),
    (400, lambda name: f"{name} must be "), (503, _BUSY), (503, "gone"),
)  # fmt: skip
RPC = Family(
    rpc, (401, (-32000, None)), (401, (-32000, None)), (200, (-32602, 7)), (400, (-32700, None)), (200, lambda _: (-32602, 7)),
    (429, (-32603, 7)), (200, (-32603, 7)),
)  # fmt: skip
STREAM = Family(
    detail, (401, "Unauthorized"), (401, "Unauthorized"), (404, _NO_MODEL), (400, _NO_JSON),
    (422, lambda name: f"{name} must be "), (429, "Full"), (503, "gone"),
)  # fmt: skip
CONVERSATION = Family(
    fields, (422, ("missing", "header", "x-api-key")), (403, "Forbidden"), (404, _NO_MODEL), (422, ("json_invalid", "body")),
    (422, lambda name: ("string_type", "body", name)), (429, "Full"), (503, "gone"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surface:
    """One way to have text made."""

    path: str
    family: Family
    body: dict[str, Any]
    """A request for text, less its model. The last field is the one that a test mistypes."""
    of_call: bool = False
    """Whether the body is the parameters of a JSON-RPC call."""
    streams: dict[str, Any] | None = field(default_factory=lambda: {"stream": True})
    """What asks for a stream; None where there is none."""
    last: Said = ollama
    """What the last data of a stream that fails half way says."""

    @property
    def mistyped(self) -> str:
        return list(self.body)[-1]

    def content(self, model: str | None = "fake", fields: Mapping[str, object] | None = None) -> bytes:
        given = {**({} if model is None else {"model": model}), **self.body, **(fields or {})}
        call = {"jsonrpc": "2.0", "method": "create_message", "params": given, "id": 7}
        return orjson.dumps(call if self.of_call else given)


def failed_response(event: dict[str, Any]) -> object:
    assert event["type"] == "response.failed"
    return event["response"]["error"]["code"], event["response"]["status"]


SURFACES = {
    "chat": Surface("/v1/chat/completions", OPENAI, {"messages": MESSAGES}, last=openai),
    "completions": Surface("/v1/completions", OPENAI, {"prompt": "Hi"}, last=openai),
    "responses": Surface("/v1/responses", OPENAI, {"input": "Hi"}, last=failed_response),
    "embeddings": Surface("/v1/embeddings", OPENAI, {"input": "Hi"}, streams=None),
    "anthropic": Surface("/v1/messages", ANTHROPIC, {"messages": MESSAGES, "max_tokens": 5}, last=anthropic),
    "ollama generate": Surface("/api/generate", OLLAMA, {"stream": False, "prompt": "Hi"}),
    "ollama chat": Surface("/api/chat", OLLAMA, {"stream": False, "messages": MESSAGES}),
    "ollama embed": Surface("/api/embed", OLLAMA, {"input": "Hi"}, streams=None),
    "rpc": Surface("/rpc", RPC, {"message": "Hi"}, of_call=True, streams=None),
    "stream": Surface("/stream", STREAM, {"message": "Hi"}, streams={}),
    "conversation": Surface("/chat/blocking", CONVERSATION, {"prompt": "Hi"}, streams=None),
    "conversation stream": Surface("/chat/stream", CONVERSATION, {"prompt": "Hi"}, streams={}),
}

every_surface = pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)


def fails(error: KolosalError) -> FakeEngine:
    """An engine that fails before it says anything."""
    engine = FakeEngine("fake", lambda _: [error])
    engine.answer = lambda _: error
    return engine


async def post(
    surface: Surface, content: bytes, engine: FakeEngine | None = None, key: str | None = USER
) -> httpx.Response:
    headers = {} if key is None else {"x-api-key": key}
    async with http_client(app_with_keys(engine or FakeEngine("fake", says("Hi"))), headers) as client:
        return await client.post(surface.path, content=content)


def told(surface: Surface, response: httpx.Response) -> tuple[int, object]:
    """Status and words; every whole answer is JSON, whatever the request asked for."""
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.status_code, surface.family.said(response.json())


@every_surface
async def test_x03_a_key_is_needed(surface: Surface) -> None:
    engine = FakeEngine("fake", says("Hi"))
    for key, wanted in ((None, surface.family.no_key), ("no such key", surface.family.wrong_key)):
        assert told(surface, await post(surface, surface.content(), engine, key)) == wanted
    assert not engine.requests
    assert not engine.calls


@every_surface
async def test_x03_a_bad_body_is_not_looked_at_without_a_key(surface: Surface) -> None:
    assert told(surface, await post(surface, CUT_OFF, key="no such key")) == surface.family.wrong_key


@every_surface
async def test_with_a_key_it_answers(surface: Surface) -> None:
    assert (await post(surface, surface.content())).status_code == 200


@every_surface
async def test_a_model_that_is_not_there(surface: Surface) -> None:
    assert told(surface, await post(surface, surface.content("nobody"))) == surface.family.no_model


@every_surface
async def test_a_body_that_is_no_json(surface: Surface) -> None:
    assert told(surface, await post(surface, CUT_OFF)) == surface.family.no_json


@every_surface
async def test_a_field_of_another_type(surface: Surface) -> None:
    content = surface.content(fields={surface.mistyped: 5.5})
    status, wanted = surface.family.mistyped[0], surface.family.mistyped[1](surface.mistyped)
    found_status, found = told(surface, await post(surface, content))
    assert found_status == status
    assert found.startswith(wanted) if isinstance(found, str) else found == wanted  # type: ignore[arg-type]


@every_surface
async def test_an_overload_says_when_to_come_back(surface: Surface) -> None:
    response = await post(surface, surface.content(), fails(QueueFull("Full", retry_after_s=7)))
    assert told(surface, response) == surface.family.full
    assert response.headers["retry-after"] == "7"


TOO_LONG = ContextLengthExceeded.of(6012, 4096)


def overflow_of(surface: Surface, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The message, and the object that holds what is said beside it."""
    error = body.get("error")
    if surface.family in (OLLAMA, STREAM, CONVERSATION):
        return body.get("error") or body["detail"], body
    assert isinstance(error, dict)
    return error["message"], error.get("data", error)


@every_surface
@pytest.mark.parametrize("streamed", [False, True])
async def test_overflow_is_said_in_the_words_that_clients_know(surface: Surface, *, streamed: bool) -> None:
    content = surface.content(fields={"truncate": False} | ((surface.streams or {}) if streamed else {}))
    if surface.family is ANTHROPIC:
        content = surface.content(fields=surface.streams if streamed else {})
    response = await post(surface, content, fails(TOO_LONG))
    message, facts = overflow_of(surface, response.json())
    assert response.status_code == (200 if surface.of_call else 400)
    assert message.startswith("prompt is too long")
    assert "maximum context length is 4096 tokens" in message
    assert {name: facts[name] for name in ("code", "n_prompt_tokens", "n_ctx")} == {
        "code": "context_length_exceeded", "n_prompt_tokens": 6012, "n_ctx": 4096,
    }  # fmt: skip


BUSY = "The server has 1 requests running and waiting, as many as it may"
FULL_DAEMON: dict[str, tuple[int, object]] = {
    "openai": (503, ("server_error", "server_busy", None)), "anthropic": (529, "overloaded_error"), "ollama": (503, BUSY),
    "rpc": (503, (-32603, 7)), "detail": (503, BUSY), "fields": (503, BUSY),
}  # fmt: skip


@every_surface
async def test_a_full_daemon_says_when_to_come_back(surface: Surface) -> None:
    engine = FakeEngine("fake", says("Hi"))
    app = app_with_keys(engine, max_requests=1)
    place = app.state.services.admission.enter("somebody")
    async with http_client(app, {"x-api-key": USER}) as client:
        response = await client.post(surface.path, content=surface.content())
        assert told(surface, response) == FULL_DAEMON[surface.family.said.__name__]
        assert response.headers["retry-after"] == "2"
        place.leave()
        assert (await client.post(surface.path, content=surface.content())).status_code == 200


class BrokenEngine(FakeEngine):
    """An engine with a defect of ours."""

    def generate(self, request: GenerateRequest) -> RequestStream:
        raise RuntimeError(f"a secret of {request}")

    async def call(self, call: Call) -> CallResult:
        raise RuntimeError(f"a secret of {call}")


DEFECT: dict[str, object] = {
    "openai": ("server_error", "internal_error", None), "anthropic": "api_error", "ollama": "Internal server error",
    "rpc": (-32603, None), "detail": "Internal server error", "fields": "Internal server error",
}  # fmt: skip


@every_surface
async def test_a_defect_of_ours_tells_nothing(surface: Surface) -> None:
    response = await post(surface, surface.content(), BrokenEngine("fake"))
    assert told(surface, response) == (500, DEFECT[surface.family.said.__name__])
    assert "secret" not in response.text


@every_surface
async def test_an_engine_that_dies_before_its_first_word_is_a_status(surface: Surface) -> None:
    content = surface.content(fields=surface.streams)
    assert told(surface, await post(surface, content, fails(EngineDied("gone")))) == surface.family.died


MID_STREAM = {
    "chat": ("server_error", "engine_died", None),
    "completions": ("server_error", "engine_died", None),
    "responses": ("server_error", "failed"),
    "anthropic": "overloaded_error",
    "ollama generate": "gone",
    "ollama chat": "gone",
    "stream": "gone",
}


@pytest.mark.parametrize("name", MID_STREAM)
async def test_an_engine_that_dies_half_way_is_the_last_event(name: str) -> None:
    surface = SURFACES[name]
    engine = FakeEngine("fake", lambda _: [TokenDelta("Half a "), EngineDied("gone")])
    response = await post(surface, surface.content(fields=surface.streams), engine)
    assert response.status_code == 200
    assert "Half a " in response.text
    last = response.text.rstrip("\n").rpartition("\n")[2].removeprefix("data: ")
    assert surface.last(orjson.loads(last)) == MID_STREAM[name]


class TestWebSocket:
    """The same over a session's connection, where errors are messages and only the key ends it."""

    @pytest.mark.parametrize("carrier", [{}, {"query": "x_api_key=no+such+key"}, {"key": "no such key"}])
    async def test_x03_a_key_is_needed(self, carrier: dict[str, str]) -> None:
        async with connected(app_with_keys(FakeEngine()), "some-session", **carrier) as socket:
            message = await socket.next()
            await socket.ended()
        assert message["method"] == "error"
        error = {"code": -32000, "message": "Unauthorized"}
        assert message["params"] == {"session_id": "some-session", "error": error}
        assert socket.closed == 1008

    @pytest.mark.parametrize("carrier", [{"query": f"x_api_key={USER}"}, {"key": USER}])
    async def test_with_a_key_it_is_let_in(self, carrier: dict[str, str]) -> None:
        async with connected(app_with_keys(FakeEngine()), "some-session", **carrier) as socket:
            assert (await socket.next())["params"]["error"]["message"] == "Invalid session ID"

    @pytest.mark.parametrize(
        ("text", "code", "request_id"),
        [
            ("{", -32700, None),
            ('{"jsonrpc": "2.0", "method": "generate", "params": {"message": 5.5}, "id": 7}', -32602, 7),
        ],
    )
    async def test_what_is_wrong_with_a_message(self, text: str, code: int, request_id: int | None) -> None:
        async with session(FakeEngine("fake", says("Hi"))) as socket:
            socket.say(text)
            message = await socket.next()
        assert (message["error"]["code"], message["id"]) == (code, request_id)

    @pytest.mark.parametrize(
        ("error", "model", "code", "word"),
        [
            (EngineDied("gone"), "fake", -32000, "engine_died"),
            (QueueFull("Full", retry_after_s=7), "fake", -32000, "queue_full"),
            (TOO_LONG, "fake", -32000, "context_length_exceeded"),
            (None, "nobody", -32001, None),
        ],
    )
    async def test_what_fails_is_told_and_ends_the_task(
        self, error: KolosalError | None, model: str, code: int, word: str | None
    ) -> None:
        engine = FakeEngine("fake", says("Hi")) if error is None else fails(error)
        async with session(engine) as socket:
            await socket.ask("generate", message="Hi", model=model)
            failure, end = await socket.next(), await socket.next()
        assert (failure["method"], end["method"]) == ("error", "end")
        assert failure["params"]["error"]["code"] == code
        assert failure["params"]["error"].get("data", {}).get("code") == word
