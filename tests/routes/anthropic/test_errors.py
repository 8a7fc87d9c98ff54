"""Errors of the Anthropic dialect: its shape, whoever raises them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from kolosal.errors import (
    ERROR_TABLE,
    ContextLengthExceeded,
    Draining,
    EngineDied,
    GenerationFailed,
    InsufficientMemory,
    KolosalError,
    LoadFailed,
    QueueFull,
)
from kolosal.routes.anthropic.errors import error_body, error_status
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.anthropic.messages import HELLO, WEATHER, ask

FORMAT = {"type": "json_schema", "schema": {"type": "object"}}

USE = {"type": "tool_use", "id": "1", "name": "f", "input": {}}


def _user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def _assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    turn = {"role": "assistant", "content": list(blocks)}
    return {"messages": [turn, {"role": "user", "content": "x"}]}


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"properties": value}
    return value


def _shape(response: httpx.Response) -> tuple[int, str]:
    """The status and the type of an error that has the dialect's shape."""
    body = response.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]["type"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"made_up": 1}, "made_up"), ({"system": [{"type": "image"}]}, "system.0.type"),
        (_user({"text": "x"}), "messages.0.content.0.type"), (_user(USE), "messages.0.content.0.type"),
        (_user({"type": "thinking", "thinking": "x"}), "messages.0.content.0.type"),
        (_user({"type": "tool_result", "tool_use_id": "1"}), "messages.0.content.0.tool_use_id"),
        (_assistant({"type": "tool_result", "tool_use_id": "1"}), "messages.0.content.0.type"),
        (_assistant(USE | {"input": _deep(101)}), "messages.0.content.0.input"),
        ({"messages": [{"role": "assistant", "content": [USE]}]}, "messages.0"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"), ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tools": [WEATHER, WEATHER]}, "tools.1.name"),
        ({"tools": [{"name": "f", "input_schema": {"type": "string"}, "strict": True}]}, "tools.0.input_schema"),
        ({"tools": [{"name": "f", "input_schema": _deep(101)}]}, "tools.0.input_schema"),
        ({"tools": [{"name": "f", "input_schema": {"title": "x" * 300_000}}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}, "tools": [WEATHER]}, "tool_choice.name"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [WEATHER]}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_format": {"type": "json_schema", "schema": _deep(101)}}, "output_format.schema"),
        ({"output_format": FORMAT, "output_config": {"format": FORMAT}}, "output_format"),
        ({"output_format": FORMAT | {"schema": {"title": "x" * 300_000}}}, "output_format.schema"),
    ],
)  # fmt: skip
async def test_a_bad_value_is_a_400_that_names_it(fields: dict[str, Any], path: str) -> None:
    engine = FakeEngine(script=says("a"))
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/messages", content=json.dumps(HELLO | fields))
    assert _shape(response) == (400, "invalid_request_error")
    message = response.json()["error"]["message"]
    assert path in message
    assert len(message) < 250
    assert not engine.requests


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"container": "c"}, "container"), ({"mcp_servers": [{}]}, "mcp_servers"), ({"thread": {"type": "create"}}, "thread"),
        ({"compaction": {"type": "summarize"}}, "compaction"), ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits.0.type"),
        (_user({"type": "image", "source": {}}), "messages.0.content.0.type"),
        (_user({"type": "document", "source": {}}), "messages.0.content.0.type"),
        (_assistant({"type": "server_tool_use"}), "messages.0.content.0.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [WEATHER | {"allowed_callers": ["code_execution_20260120"]}]}, "tools.0.allowed_callers"),
    ],
)  # fmt: skip
async def test_what_is_not_supported_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    status, body = await ask(FakeEngine(script=says("a")), **fields)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert path in body["error"]["message"]
    assert "support" in body["error"]["message"] or "no code" in body["error"]["message"]


async def test_an_image_in_a_result_is_refused() -> None:
    image = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "source": {}}]}
    turns = [{"role": "assistant", "content": [USE]}, {"role": "user", "content": [image]}]
    status, body = await ask(FakeEngine(script=says("a")), messages=turns)
    assert status == 400
    assert "messages.1.content.0.content.0.type" in body["error"]["message"]


async def test_fields_that_change_nothing_pass() -> None:
    status, _ = await ask(
        FakeEngine(script=says("a")), metadata={"user_id": "x"}, service_tier="auto", speed="fast", mcp_servers=[],
        cache_control={"type": "ephemeral"}, inference_geo="eu", diagnostics={}, context_management={"edits": []},
        anthropic_version="bedrock-2023-05-31", fallbacks="default",
    )  # fmt: skip
    assert status == 200


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ContextLengthExceeded("5000 tokens, 4096 fit"), (400, "invalid_request_error")),
        (QueueFull("full"), (429, "rate_limit_error")), (EngineDied("gone"), (529, "overloaded_error")),
        (InsufficientMemory("no room"), (529, "overloaded_error")), (Draining("bye"), (529, "overloaded_error")),
        (GenerationFailed("decode"), (500, "api_error")),
    ],
)  # fmt: skip
async def test_errors_of_engines_have_their_status_and_type(
    error: KolosalError, expected: tuple[int, str], streaming: bool
) -> None:
    async with http_client(app_with(FakeEngine(script=lambda _: [error]))) as client:
        response = await client.post("/v1/messages", json=HELLO | {"stream": streaming})
    assert _shape(response) == expected
    assert error.message in response.json()["error"]["message"]


async def test_a_full_engine_says_when_to_come_back_and_a_broken_model_not_to() -> None:
    engine = FakeEngine()
    engine.refusal = QueueFull("full", retry_after_s=2)
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/messages", json=HELLO)
        assert (_shape(response), response.headers["retry-after"]) == ((429, "rate_limit_error"), "2")
        engine.load_error = LoadFailed("broken")
        response = await client.post("/v1/messages", json=HELLO)
    assert (_shape(response), response.headers["x-should-retry"]) == ((500, "api_error"), "false")


async def test_errors_that_no_route_raises_have_the_shape_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(script=says("a"))
    async with http_client(app_with(engine, max_body_bytes=2048)) as client:
        assert _shape(await client.post("/v1/messages", content=b"{")) == (400, "invalid_request_error")
        assert _shape(await client.post("/v1/messages", content=b"x" * 2049)) == (413, "request_too_large")
        packed = await client.post("/v1/messages", content=b"", headers={"content-encoding": "gzip"})
        assert _shape(packed) == (415, "invalid_request_error")
        assert _shape(await client.post("/v1/messages", json=HELLO | {"model": "X"})) == (
            404,
            "not_found_error",
        )
        assert _shape(await client.get("/v1/messages/batches")) == (404, "not_found_error")
        wrong = await client.get("/v1/messages")
        assert (_shape(wrong), wrong.headers["allow"]) == ((405, "invalid_request_error"), "POST")
        monkeypatch.setattr(engine, "generate", lambda _request: 1 / 0)
        assert _shape(await client.post("/v1/messages", json=HELLO)) == (500, "api_error")


async def test_other_paths_keep_their_own_shape() -> None:
    async with http_client(app_with()) as client:
        for path in ("/v1/messagesx", "/messages", "/v1/nope"):
            response = await client.get(path)
            assert response.json()["error"].keys() == {"message", "type", "param", "code"}
            assert "request-id" not in response.headers


@pytest.mark.parametrize("error_class", ERROR_TABLE)
def test_every_error_has_a_status_and_a_type_that_official_clients_know(
    error_class: type[KolosalError],
) -> None:
    error = error_class.__new__(error_class)
    KolosalError.__init__(error, "x")
    known = {
        400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
        405: "invalid_request_error", 409: "conflict_error", 413: "request_too_large", 415: "invalid_request_error",
        429: "rate_limit_error", 431: "invalid_request_error", 500: "api_error", 502: "api_error", 505: "api_error", 507: "api_error", 529: "overloaded_error",
    }  # fmt: skip
    assert error_body(error)["error"]["type"] == known[error_status(error)]
