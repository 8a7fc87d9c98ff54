"""Streams over HTTP: the writer's events as frames, nothing before or after them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kolosal.errors import LoadFailed
from kolosal.schema import ChatPrompt, FinishReason, Message, TokenDelta, Usage
from tests.engines.helpers import INFO
from tests.fakes import AsgiRequest, FakeEngine, app_with, says
from tests.routes.openai.responses.asking import (
    CALL,
    GOLDEN,
    HELLO,
    WEATHER,
    client_of,
    create,
    events_of,
    kept_by,
    settled,
    stream,
)


async def test_the_frames_of_a_text_are_those_of_the_golden_file() -> None:
    engine = FakeEngine(script=says("Hel", "", "lo é", usage=Usage(7, 5, 3)))
    async with client_of(engine) as client:
        response = await client.post("/v1/responses", json=HELLO | {"stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert settled(response.text) == (GOLDEN / "text.txt").read_text(encoding="utf-8")


async def test_a_call_streams_its_arguments() -> None:
    async with client_of(FakeEngine(script=says(*f"Let me see. {CALL}"))) as client:
        events = await stream(client, tools=[WEATHER])
    deltas = [e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == '{"city": "Paris"}'
    message, call = events[-1]["response"]["output"]
    assert message["content"][0]["text"].strip() == "Let me see."
    assert (call["name"], call["arguments"]) == ("weather", '{"city": "Paris"}')


async def test_a_stream_ends_with_what_a_whole_response_would_be() -> None:
    async with client_of(FakeEngine(script=says(*f"Let me see. {CALL}"))) as client:
        whole = await create(client, tools=[WEATHER])
        last = (await stream(client, tools=[WEATHER]))[-1]["response"]
    assert settled(str(last).replace("'", '"')) == settled(str(whole).replace("'", '"'))


async def test_thoughts_are_an_item_before_the_answer_and_are_counted() -> None:
    words = ["<think>", "\n", "Hm", "…", "\n", "</think>", "\n\n", "Hi"]
    engine = FakeEngine(
        script=lambda _: [
            *(TokenDelta(word, (number,)) for number, word in enumerate(words)),
            TokenDelta("", (), FinishReason.STOP, Usage(3, len(words))),
        ]
    )
    engine.info = replace(INFO, thinking_tags=("<think>", "</think>"))
    async with client_of(engine) as client:
        events = await stream(client)
        again = await create(client, previous_response_id=events[-1]["response"]["id"])
    kinds = [event["type"] for event in events if event["type"].endswith(".delta")]
    assert kinds[0] == "response.reasoning_text.delta"
    assert kinds[-1] == "response.output_text.delta"
    thought, message = events[-1]["response"]["output"]
    assert (thought["type"], thought["content"]) == (
        "reasoning",
        [{"type": "reasoning_text", "text": "Hm…"}],
    )
    assert message["content"][0]["text"] == "Hi"
    assert again["usage"]["output_tokens_details"] == {"reasoning_tokens": 7}
    assert isinstance(engine.requests[1].prompt, ChatPrompt)
    assert engine.requests[1].prompt.messages[1] == Message("assistant", "Hi", thinking="Hm…")


async def test_a_stream_that_fails_before_it_began_begins_all_the_same() -> None:
    engine = FakeEngine()
    engine.loading, engine.load_error = asyncio.Event(), LoadFailed("no such luck")
    app = app_with(engine, stream_headers_after_s=0)
    request = AsgiRequest("/v1/responses", HELLO | {"stream": True})
    task = request.start(app)
    await request.until(b": ping\n\n")
    engine.loading.set()
    await task
    events = events_of(request.content.decode().removeprefix(": ping\n\n"))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    assert events[2]["response"]["error"]["message"] == "no such luck"


async def test_a_response_that_never_began_is_not_kept() -> None:
    engine = FakeEngine()
    engine.loading = asyncio.Event()
    async with kept_by(engine, stream_headers_after_s=0) as app:
        request = AsgiRequest("/v1/responses", HELLO | {"stream": True})
        task = request.start(app)
        await request.until(b": ping\n\n")
        request.leave()
        await task
        async with app.state.services.store.reading(None) as session:
            assert (await session.responses.usage())[0] == 0
