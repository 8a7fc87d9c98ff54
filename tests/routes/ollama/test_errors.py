"""Errors of the Ollama dialect: one shape, whoever raises them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kolosal.errors import (
    Draining,
    EngineDied,
    GenerationFailed,
    InsufficientMemory,
    InternalError,
    KolosalError,
    LoadFailed,
    QueueFull,
)
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.ollama.asking import HELLO, WEATHER, lines, loaded_engine, refused

USE = {"function": {"name": "f", "arguments": {}}}


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"properties": value}
    return value


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"format": "xml"}, 'format: "xml"'), ({"format": _deep(101)}, "format"), ({"format": {"title": "x" * 300_000}}, "format"),
        ({"messages": [{"role": "user", "tool_calls": [USE]}]}, "messages.0.tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": _deep(101)}}]}]},
         "messages.0.tool_calls.0.function.arguments"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "x" * 1_100_000}}}]}]},
         "messages.0.tool_calls.0.function.arguments"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"), ({"tools": [WEATHER, WEATHER]}, "tools.1"),
        ({"tools": [{"function": {"name": "f", "parameters": _deep(101)}}]}, "tools.0.function.parameters"),
        ({"tools": [{"function": {"name": "f", "parameters": {"title": "x" * 300_000}}}]}, "tools.0.function.parameters"),
    ],
)  # fmt: skip
async def test_a_bad_value_in_a_chat_is_named(fields: dict[str, Any], path: str) -> None:
    engine = FakeEngine(script=says("a"))
    status, error = await refused(engine, "/api/chat", **{"messages": HELLO} | fields)
    assert status == 400
    assert path in error
    assert len(error) < 250
    assert not engine.requests


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"suffix": "b", "system": "c"}, "system"), ({"suffix": "b", "context": [1]}, "context"),
        ({"template": "{{ .Prompt }}", "system": "c"}, "system"), ({"template": "{{ .Prompt }}", "context": [1]}, "context"),
    ],
)  # fmt: skip
async def test_what_does_not_go_together_is_named(fields: dict[str, Any], path: str) -> None:
    engine = FakeEngine(script=says("a"))
    status, error = await refused(engine, "/api/generate", **{"prompt": "a"} | fields)
    assert (status, error.split()[0]) == (400, path)
    assert not engine.requests


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"images": ["aGk="]}, "images"), ({"width": 512}, "width"), ({"height": 512}, "height"), ({"steps": 4}, "steps"),
        ({"_debug_render_only": True}, "_debug_render_only"), ({"template": "{{ .System }}"}, "template"),
    ],
)  # fmt: skip
async def test_what_is_not_supported_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    engine = FakeEngine(script=says("a"))
    status, error = await refused(engine, "/api/generate", prompt="a", **fields)
    assert (status, error.split()[0]) == (400, path)
    nothing = dict.fromkeys(fields, None)
    *_, last = await lines(engine, "/api/generate", prompt="a", **nothing)
    assert last["done"] is True


async def test_a_picture_in_a_turn_is_refused() -> None:
    turn = {"role": "user", "content": "a", "images": ["aGk="]}
    status, error = await refused(FakeEngine(), "/api/chat", messages=[turn])
    assert (status, error) == (400, "messages.0.images is not supported by this server")


async def test_a_tool_that_is_no_function_is_refused() -> None:
    status, error = await refused(FakeEngine(), "/api/chat", messages=HELLO, tools=[{"type": "web_search"}])
    assert (status, error.split()[0]) == (400, "tools.0.type")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (QueueFull("full"), 503, "server busy, please try again.  maximum pending requests exceeded"),
        (Draining("stopping"), 503, "stopping"), (EngineDied("gone"), 503, "gone"), (LoadFailed("broken"), 500, "broken"),
        (GenerationFailed("no"), 500, "no"), (InsufficientMemory("large"), 503, "large"),
        (InternalError(), 500, "Internal server error"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_an_error_before_the_first_line_is_a_status(
    path: str, error: KolosalError, status: int, text: str
) -> None:
    engine = FakeEngine(script=lambda _: [error])
    for stream in (True, False):
        assert await refused(engine, path, messages=HELLO, prompt="a", stream=stream) == (status, text)
    engine = FakeEngine()
    engine.load_error = error
    assert await refused(engine, path, messages=HELLO, prompt="a") == (status, text)


async def test_an_unknown_failure_half_way_is_the_last_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded_engine(says("a"))
    monkeypatch.setattr("kolosal.routes.ollama.endpoints.metrics", lambda *_: 1 / 0)
    *_, last = await lines(engine, "/api/chat", messages=HELLO)
    assert last == {"error": "Internal server error"}


async def _refusal(response: httpx.Response) -> tuple[int, list[str]]:
    return response.status_code, list(response.json())


async def test_every_other_error_has_the_shape_too() -> None:
    async with http_client(app_with(FakeEngine(), max_body_bytes=1024)) as client:
        assert await _refusal(await client.get("/api/nothing")) == (404, ["error"])
        assert await _refusal(await client.get("/api/chat")) == (405, ["error"])
        assert await _refusal(await client.post("/api/chat", content=b"{")) == (400, ["error"])
        assert await _refusal(await client.post("/api/chat", content=b"[]")) == (400, ["error"])
        assert await _refusal(await client.post("/api/chat", content=b" " * 2000)) == (413, ["error"])
        gzipped = {"content-encoding": "gzip"}
        assert await _refusal(await client.post("/api/chat", content=b"{}", headers=gzipped)) == (
            415,
            ["error"],
        )
