"""`POST /v1/chat/completions`: what is refused, and what fails."""

from __future__ import annotations

import pytest

from kolosal.errors import (
    ContextLengthExceeded,
    EngineDied,
    GenerationFailed,
    InvalidRequest,
    KolosalError,
    LoadFailed,
    QueueFull,
)
from kolosal.schema import TokenDelta
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.chats import HELLO, ask, stream


@pytest.mark.parametrize(
    "body", [b'{"messages":[{"role":"user","content":"x"}]}', b'{"model":"fake"}', b'{"model":""}', b"{}"]
)
async def test_model_and_messages_are_required(body: bytes) -> None:
    async with http_client(app_with(FakeEngine(script=says("a")), FakeEngine("other"))) as client:
        response = await client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Missing required fields (model, messages)"
    assert response.json()["error"]["param"] in ("model", "messages")


@pytest.mark.parametrize(
    ("field", "asks", "harmless"),
    [
        ("functions", [{}], []), ("function_call", "f", "auto"), ("modalities", ["audio"], ["text"]),
        ("audio", {"voice": "x"}, None), ("web_search_options", {}, None),
        ("moderation", {}, None), ("n_probs", 3, 0), ("post_sampling_probs", True, False), ("return_progress", True, False),
        ("response_fields", ["content"], []),
    ],
)  # fmt: skip
async def test_what_is_not_supported_is_refused_by_name_but_not_when_it_asks_for_nothing(
    field: str, asks: object, harmless: object
) -> None:
    status, body = await ask(FakeEngine(script=says("a")), **{field: asks})
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "unsupported_feature", field)
    for value in (harmless, None):
        status, _ = await ask(FakeEngine(script=says("a")), **{field: value})
        assert status == 200


async def test_messages_cut_off_by_powershell_are_explained() -> None:
    for messages in ("System.Collections.Hashtable", ["@{role=user; content=hi}"]):
        status, body = await ask(FakeEngine(), messages=messages)
        assert status == 400
        assert "-Depth" in body["error"]["message"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ContextLengthExceeded("5000 tokens, 4096 fit"), 400), (InvalidRequest("template", param="messages"), 400),
        (EngineDied("gone"), 503), (GenerationFailed("decode"), 500),
    ],
)  # fmt: skip
async def test_an_error_before_the_first_event_is_a_status_line(
    error: KolosalError, status: int, streaming: bool
) -> None:
    engine = FakeEngine(script=lambda _: [error])
    got, body = await ask(engine, stream=streaming)
    assert (got, body["error"]["message"]) == (status, error.message)


async def test_an_error_later_on_ends_the_stream_without_done() -> None:
    engine = FakeEngine(script=lambda _: [TokenDelta("Hel"), EngineDied("gone")])
    events = await stream(engine)
    assert events[-1] == {
        "error": {"message": "gone", "type": "server_error", "param": None, "code": "engine_died"}
    }
    assert "[DONE]" not in events


async def test_unknown_models_full_engines_and_failed_loads() -> None:
    status, body = await ask(FakeEngine(), model="X")
    assert status == 404
    assert body == {"error": {
        "message": "Model 'X' not found or could not be loaded", "type": "invalid_request_error", "param": None, "code": None,
    }}  # fmt: skip
    engine = FakeEngine()
    engine.refusal = QueueFull("full", retry_after_s=2)
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/chat/completions", json=HELLO)
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    engine.load_error = LoadFailed("broken")
    status, body = await ask(engine)
    assert (status, body["error"]["code"]) == (422, "model_loading_failed")
