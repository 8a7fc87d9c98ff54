"""`POST /v1/messages` and `/v1/messages/count_tokens` over a scripted engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from kolosal.engines.ipc.calls import Render
from kolosal.errors import EngineDied, QueueFull
from kolosal.http.sse import EventStream
from kolosal.routes.anthropic.errors import error_frame
from kolosal.routes.anthropic.stream import PING
from kolosal.schema import FinishReason, GenerateRequest, TokenDelta, Usage
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client, says
from tests.routes.anthropic.messages import CALL, HELLO, WEATHER, ask, golden


def _stopped(_request: GenerateRequest) -> list[TokenDelta]:
    end = TokenDelta("", (), FinishReason.STOP, Usage(20, 2, 16), stop="END")
    return [TokenDelta("Hel", usage=Usage(20, 1, 16)), TokenDelta("lo é"), end]


async def test_a_whole_answer_has_exactly_these_keys() -> None:
    engine = FakeEngine(script=says("Hel", "lo é", usage=Usage(7, 2, 3)))
    async with http_client(app_with(engine)) as client:
        response = await client.post(
            "/v1/messages?beta=true",
            json=HELLO,
            headers={"x-api-key": "any", "anthropic-version": "2023-06-01", "anthropic-beta": "x,y"},
        )
    assert response.status_code == 200
    assert response.headers["request-id"] == response.headers["x-request-id"]
    body = response.json()
    assert re.fullmatch(r"msg_[A-Za-z0-9]{24}", body.pop("id"))
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [{"type": "text", "text": "Hello é"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 2,
        },
    }


async def test_a_stream_is_as_the_golden_file_says() -> None:
    async with http_client(app_with(FakeEngine(script=_stopped))) as client:
        response = await client.post("/v1/messages", json=HELLO | {"stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert re.sub(r"msg_[A-Za-z0-9]{24}", "msg_ID", response.text) == golden("text")


async def test_a_call_is_a_block() -> None:
    status, body = await ask(FakeEngine(script=says("I look.\n", *CALL)), tools=[WEATHER])
    assert (status, body["stop_reason"]) == (200, "tool_use")
    text, call = body["content"]
    assert text["text"].strip() == "I look."
    assert re.fullmatch(r"toolu_[A-Za-z0-9]{24}", call.pop("id"))
    assert call == {"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}


async def test_an_error_half_way_is_an_event_of_its_own() -> None:
    engine = FakeEngine(script=lambda _: [TokenDelta("Hel"), EngineDied("gone")])
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/messages", json=HELLO | {"stream": True})
    assert response.status_code == 200
    assert response.text.endswith(
        'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"gone"}}\n\n'
    )
    assert "message_stop" not in response.text


async def _silence() -> AsyncGenerator[bytes, None]:
    await asyncio.Event().wait()
    yield b""


async def test_pings_are_events() -> None:
    stream = EventStream(_silence(), lambda: None, error_frame, ping=PING, ping_interval_s=0.01)
    request = AsgiRequest()
    task = request.start(stream)
    await request.until(b'event: ping\ndata: {"type":"ping"}\n\n')
    request.leave()
    await task


async def test_tokens_are_counted_without_generating() -> None:
    engine = FakeEngine()
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/messages/count_tokens", json={**HELLO, "tools": [WEATHER]})
        assert (response.status_code, response.json()) == (200, {"input_tokens": len("Hello")})
        [call] = engine.calls
        assert isinstance(call, Render)
        assert not engine.requests
        engine.answer = lambda _call: QueueFull("full")
        response = await client.post("/v1/messages/count_tokens", json=HELLO)
    assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit_error")
