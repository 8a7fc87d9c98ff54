"""`/stream`: text as it is made."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from kolosal.errors import ContextLengthExceeded, EngineDied, KolosalError, LoadFailed, QueueFull
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.jsonrpc.calling import CALL, NATIVE_CALL, WEATHER, prompt_of, turn, turns_of


async def ask(engine: FakeEngine | None, content: object, **settings: Any) -> httpx.Response:
    engines = () if engine is None else (engine,)
    async with http_client(app_with(*engines, **settings)) as client:
        if isinstance(content, bytes):
            return await client.post("/stream", content=content)
        return await client.post("/stream", json=content)


def frames(response: httpx.Response) -> list[dict[str, str]]:
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    *lines, rest = response.text.split("\n\n")
    assert rest == ""
    return [orjson.loads(line.removeprefix("data: ")) for line in lines]


async def test_R09_each_piece_is_a_frame_and_the_end_of_the_body_is_the_end() -> None:
    engine = FakeEngine(script=says("Grü", "", "ße ", "\n", "🎉"))
    assert frames(await ask(engine, {"message": "Hi"})) == [
        {"delta": "Grü"}, {"delta": "ße "}, {"delta": "\n"}, {"delta": "🎉"}
    ]  # fmt: skip
    assert engine.requests[0].sampling.max_tokens == 4096


async def test_R09_an_engine_that_dies_half_way_ends_the_stream_with_an_error() -> None:
    script = lambda each: [*list(says("Hel")(each))[:1], EngineDied("gone")]  # noqa: E731
    assert frames(await ask(FakeEngine(script=script), {"message": "Hi"})) == [
        {"delta": "Hel"},
        {"error": "gone"},
    ]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ({}, 400, "Stream request must contain either 'message' or 'history'"),
        ({"history": []}, 400, "Stream request must contain either 'message' or 'history'"),
        (b"{", 400, "Invalid JSON"), (b"", 400, "Invalid JSON"), (b"[]", 400, "must be an object"),
        ({"message": 5}, 422, "message must be a string"),
        ({"message": "x", "tools": [{}]}, 422, "tools.0.name"), ({"message": "x", "model": "nope"}, 404, "'nope' not found"),
    ],
)  # fmt: skip
async def test_R09_a_bad_request_is_told_before_the_stream(content: object, status: int, words: str) -> None:
    response = await ask(FakeEngine(script=says("a")), content)
    assert response.status_code == status
    assert response.json().keys() == {"detail"}
    assert words in response.json()["detail"]


async def test_R09_without_an_engine_the_service_is_not_available() -> None:
    response = await ask(None, {"message": "Hi"})
    assert (response.status_code, response.json()) == (503, {"detail": "Model or tokenizer not loaded"})
    engine = FakeEngine()
    engine.load_error = LoadFailed("broken")
    response = await ask(engine, {"message": "Hi"})
    assert (response.status_code, response.json()) == (503, {"detail": "broken"})


@pytest.mark.parametrize(
    ("error", "status"),
    [(QueueFull("full"), 429), (EngineDied("gone"), 503), (ContextLengthExceeded("too long"), 400)],
)
async def test_R09_what_fails_before_the_first_piece_is_a_status(error: KolosalError, status: int) -> None:
    response = await ask(FakeEngine(script=lambda _: [error]), {"message": "Hi"})
    assert (response.status_code, response.json()) == (status, {"detail": error.message})


async def test_errors_of_the_transport_have_the_shape_too() -> None:
    async with http_client(app_with(FakeEngine(), max_body_bytes=2048)) as client:
        for response, status in (
            (await client.post("/stream", content=b"x" * 3000), 413), (await client.get("/stream"), 405),
            (await client.get("/stream/x"), 404),
        ):  # fmt: skip
            assert response.status_code == status
            assert response.json().keys() == {"detail"}


async def test_tools_only_shape_the_prompt() -> None:
    engine = FakeEngine(script=says(f"{NATIVE_CALL}"))
    asked = {"history": [turn("user", "Oslo?")], "tools": [WEATHER], "iteration_count": 99}
    answer = await ask(engine, {**asked, "tool_results": [{"toolName": "weather", "result": "x"}]})
    assert orjson.loads("".join(frame["delta"] for frame in frames(answer))) == orjson.loads(CALL)
    assert prompt_of(engine.requests[0]).tool_use.tools[0].name == "weather"
    assert turns_of(engine.requests[0]) == [("user", "Oslo?")]


async def test_thoughts_are_left_out() -> None:
    engine = FakeEngine(script=says("<thi", "nk>Hm", "</think>", "\nHi <", "b>"))
    deltas = [frame["delta"] for frame in frames(await ask(engine, {"message": "Hi"}))]
    assert "".join(deltas) == "Hi <b>"
