"""Tools of `POST /v1/chat/completions`: what reaches the engine, and how calls are answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kolosal.http.request_log import places_header
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    Message,
    TokenDelta,
    Tool,
    ToolCall,
    ToolMode,
    ToolUse,
    Usage,
)
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.chats import HELLO, ask, stream

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Looks out", "parameters": SCHEMA},
}
TIME = {"type": "function", "function": {"name": "time"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def _tool_use(engine: FakeEngine) -> ToolUse:
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.tool_use


@pytest.mark.parametrize(
    ("fields", "mode", "only", "parallel"),
    [
        ({}, ToolMode.AUTO, (), True),
        ({"tool_choice": "none"}, ToolMode.NONE, (), True),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ToolMode.REQUIRED, (), False),
        (
            {"tool_choice": {"type": "function", "function": {"name": "time"}}},
            ToolMode.REQUIRED,
            ("time",),
            False,
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [{"type": "function", "function": {"name": "weather"}}],
                    },
                }
            },
            ToolMode.AUTO,
            ("weather",),
            True,
        ),
    ],
)
async def test_tools_and_the_choice_reach_the_engine(
    fields: dict[str, Any], mode: ToolMode, only: tuple[str, ...], parallel: bool
) -> None:
    engine = FakeEngine(script=says("a"))
    status, _ = await ask(engine, tools=[WEATHER, TIME], **fields)
    assert status == 200
    tools = (
        Tool("weather", "Looks out", SCHEMA, "tools.0.function.parameters"),
        Tool("time", param="tools.1.function.parameters"),
    )
    assert _tool_use(engine) == ToolUse(tools, mode, only, parallel)


async def test_calls_and_results_of_earlier_turns_reach_the_engine() -> None:
    engine = FakeEngine(script=says("a"))
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
    }
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "look out"},
        {"role": "tool", "content": [{"type": "text", "text": "rain"}], "tool_call_id": "call_1"},
    ]
    await ask(engine, messages=messages, tools=[WEATHER])
    prompt = engine.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[1:] == (
        Message(
            "assistant",
            "",
            tool_calls=(ToolCall("call_1", "weather", '{"city": "Oslo"}'),),
            thinking="look out",
        ),
        Message("tool", "rain", "weather", tool_call_id="call_1"),
    )


async def test_a_call_is_answered_with_its_arguments_and_its_reason() -> None:
    status, body = await ask(FakeEngine(script=says("I look. ", CALL)), tools=[WEATHER])
    assert status == 200
    [choice] = body["choices"]
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    assert choice["message"]["content"].strip() == "I look."


async def test_a_turn_of_calls_only_has_no_content() -> None:
    _, body = await ask(FakeEngine(script=says(CALL)), tools=[WEATHER])
    assert body["choices"][0]["message"]["content"] is None


async def test_arguments_are_streamed_as_they_come() -> None:
    pieces = [CALL[i : i + 5] for i in range(0, len(CALL), 5)]
    events = await stream(FakeEngine(script=says(*pieces)), tools=[WEATHER])
    deltas = [e["choices"][0]["delta"] for e in events if isinstance(e, dict)]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    begin, *more = calls
    assert begin["function"] == {"name": "weather", "arguments": ""}
    assert begin["type"] == "function"
    assert len(more) > 2
    assert all(piece["index"] == 0 and "id" not in piece for piece in more)
    assert json.loads("".join(piece["function"]["arguments"] for piece in more)) == {"city": "Oslo"}
    last = events[-2]
    assert isinstance(last, dict)
    assert last["choices"][0]["finish_reason"] == "tool_calls"


async def test_without_tools_what_looks_like_a_call_is_text() -> None:
    for fields in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        _, body = await ask(FakeEngine(script=says(CALL)), **fields)
        message = body["choices"][0]["message"]
        assert message["content"] == CALL
        assert "tool_calls" not in message


@pytest.mark.parametrize("after", [CALL, "It rains."], ids=["the same call", "text"])
async def test_a_turn_is_over_where_no_other_call_follows_a_call(after: str) -> None:
    engine = FakeEngine()
    asking = asyncio.create_task(ask(engine, tools=[WEATHER]))
    await engine.submitted.wait()
    for index, piece in enumerate((CALL, f"\n{after}")):  # and the engine would go on
        engine.streams[0].put(TokenDelta(piece, (1, 2), usage=None if index else Usage(5, 2)))
    _, body = await asking
    [choice] = body["choices"]
    assert (len(choice["message"]["tool_calls"]), choice["message"]["content"]) == (1, None)
    assert (choice["finish_reason"], body["usage"]["completion_tokens"]) == ("tool_calls", 4)
    assert engine.aborted == [0]


async def test_a_call_that_was_cut_off_says_length() -> None:
    engine = FakeEngine(script=says(CALL[:50], finish=FinishReason.LENGTH))
    _, body = await ask(engine, tools=[WEATHER])
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools.1"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "no"}}},
            "tool_choice",
        ),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}]},
            "messages.0.tool_calls",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    status, body = await ask(FakeEngine(script=says("a")), **fields)
    assert (status, body["error"]["param"]) == (400, param)


async def test_what_is_not_enforced_is_told_in_a_header() -> None:
    bad = {"type": "object", "properties": {"é/x": {"not": {}}}}
    tools = [WEATHER, {"type": "function", "function": {"name": "bad", "parameters": bad}}]
    schema = {"type": "object", "properties": {"a": {"format": "cuid"}}}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = HELLO | {"tools": tools, "response_format": form}
    for fields in ({}, {"stream": True}):
        async with http_client(app_with(FakeEngine(script=says("{}")))) as client:
            response = await client.post("/v1/chat/completions", json=body | fields)
        assert response.status_code == 200
        assert response.headers["x-kolosal-unenforced"] == (
            "tools.1.function.parameters#/properties/%C3%A9~1x/not,"
            " response_format.json_schema.schema#/properties/a/format"
        )


def test_a_header_of_many_places_is_short() -> None:
    value = places_header([f"a#/{index}" for index in range(1000)])
    assert len(value) < 2100
    assert value.endswith("more")


async def test_a_strict_answer_that_cannot_be_enforced_is_refused_and_another_is_not() -> None:
    engine = FakeEngine(script=says("{}"))
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?!x)"}}}
    for strict, expected in ((True, 400), (False, 200)):
        form = {"type": "json_schema", "json_schema": {"name": "n", "strict": strict, "schema": schema}}
        status, body = await ask(engine, response_format=form)
        assert status == expected
        if strict:
            assert '"/properties/a/pattern"' in body["error"]["message"]
