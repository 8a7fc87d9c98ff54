"""Tools of `POST /v1/chat/completions`: what reaches the engine, and how calls are answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kolosal.schema import ChatPrompt, FinishReason, Message, Tool, ToolCall, ToolMode, ToolUse
from tests.fakes import FakeEngine, says
from tests.routes.chats import ask, stream

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
            True,
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
        Message("tool", "rain", tool_call_id="call_1"),
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


async def test_a_call_that_was_cut_off_says_length() -> None:
    engine = FakeEngine(script=says(CALL[:50], finish=FinishReason.LENGTH))
    _, body = await ask(engine, tools=[WEATHER])
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools.1"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
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
