"""Histories as agents and editors send them, in every dialect: what reaches the engine."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kolosal.schema import ChatPrompt, Message
from tests.fakes import FakeEngine, app_with, http_client, says

CALL: dict[str, Any] = {"name": "get_weather"}
PATHS = {
    "openai": "/v1/chat/completions",
    "responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "ollama": "/api/chat",
    "jsonrpc": "/rpc",
    "conversation": "/chat/blocking",
}


async def told(dialect: str, turns: Any, **fields: Any) -> tuple[Message, ...] | str:
    """The turns as the engine gets them; else the words of the refusal."""
    engine = FakeEngine("fake", says("ok"))
    path = PATHS[dialect]
    body: dict[str, Any] = {"model": "fake", "messages": turns, "stream": False}
    match dialect:
        case "responses":
            body = {"model": "fake", "input": turns}
        case "anthropic":
            body["max_tokens"] = 5
        case "jsonrpc":
            params = {"model": "fake", "history": turns}
            body = {"jsonrpc": "2.0", "method": "create_message", "params": params, "id": 1}
        case "conversation":
            body = {"model": "fake", "prompt": "now", "history": turns}
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, content=orjson.dumps(body | fields))
    if not engine.requests:
        return response.text
    assert response.status_code == 200, response.text
    prompt = engine.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


TEXTS = [{"type": "text", "text": "What is"}, {"type": "text", "text": "the best book"}]


@pytest.mark.parametrize(
    ("dialect", "parts"),
    [
        ("openai", TEXTS),
        ("anthropic", TEXTS),
        ("responses", [part | {"type": "input_text"} for part in TEXTS]),
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_parts_glued(dialect: str, parts: list[dict[str, str]], role: str) -> None:
    if dialect == "responses" and role == "assistant":
        parts = [part | {"type": "output_text"} for part in parts]
    other = "user" if role == "assistant" else "assistant"
    turns = await told(dialect, [{"role": role, "content": parts}, {"role": other, "content": "go on"}])
    assert turns[0] == Message(role, "What is\nthe best book")


@pytest.mark.parametrize("dialect", PATHS)
async def test_roles_in_capitals(dialect: str) -> None:
    turns = await told(
        dialect, [{"role": "User", "content": "a"}, {"role": "ASSISTANT", "content": "b"}, {"role": "user", "content": "c"}]
    )  # fmt: skip
    assert [turn.role for turn in turns if isinstance(turn, Message)][-3:-1] in (
        ["user", "assistant"],
        ["assistant", "user"],
    )


def called(dialect: str, arguments: object, call_id: str | None = None) -> list[dict[str, Any]]:
    """A call and its result, which say no more than they must."""
    match dialect:
        case "openai":
            function: dict[str, Any] = CALL | {"arguments": arguments}
            calls: list[dict[str, Any]] = [{"id": call_id, "type": None, "function": function}]
            return [
                {"role": "assistant", "content": None, "tool_calls": calls},
                {"role": "tool", "tool_call_id": call_id, "content": "ok"},
            ]
        case "responses":
            call: dict[str, Any] = {
                "type": "function_call",
                "call_id": call_id,
                "id": None,
                "status": None,
                "arguments": arguments,
            }
            return [CALL | call, {"type": "function_call_output", "call_id": call_id, "output": "ok"}]
        case "anthropic":
            use: dict[str, Any] = CALL | {"type": "tool_use", "id": call_id, "input": arguments}
            return [
                {"role": "assistant", "content": [use]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "ok"}],
                },
            ]
        case "ollama":
            calls = [{"id": call_id, "function": CALL | {"arguments": arguments}}]
            return [
                {"role": "assistant", "content": None, "tool_calls": calls},
                {"role": "tool", "content": "ok", "tool_call_id": call_id},
            ]
    calls = [{"tool": CALL["name"], "parameters": arguments}]
    return [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_name": None, "tool_result": "ok"}]  # fmt: skip


WITH_TOOLS = [name for name in PATHS if name != "conversation"]


@pytest.mark.parametrize("dialect", WITH_TOOLS)
@pytest.mark.parametrize(
    "arguments", [None, "", "  ", "null", [], "[1]", '{"city": "Os', {"city": "Oslo"}, '{"city": "Oslo"}']
)
async def test_arguments_null_and_others(dialect: str, arguments: object) -> None:
    turns = await told(dialect, [{"role": "user", "content": "weather?"}, *called(dialect, arguments)])
    assert isinstance(turns, tuple), turns
    [_, asked, answered] = turns
    [call] = asked.tool_calls
    assert (call.name, answered.content, answered.name) == ("get_weather", "ok", "get_weather")
    assert answered.tool_call_id == call.id != ""
    if "Oslo" in str(arguments):
        assert orjson.loads(call.arguments) == {"city": "Oslo"}


MEDIA: dict[str, Any] = {
    "openai": {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
    "responses": {"content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
    "anthropic": {
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
        ]
    },
    "ollama": {"content": None, "images": ["AA=="]},
}


@pytest.mark.parametrize("dialect", MEDIA)
async def test_an_image_of_an_earlier_turn_is_a_note(dialect: str) -> None:
    image = {"role": "user", **MEDIA[dialect]}
    later = [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]
    turns = await told(dialect, [image, *later])
    assert turns[0] == Message("user", "[image that cannot be shown to this model]")
    assert "image" in str(await told(dialect, [*later, image]))
    assert isinstance(await told(dialect, [image, later[1]]), str), "nobody has answered it"


async def test_an_image_of_an_earlier_result_is_a_note() -> None:
    [use, result] = called("anthropic", {}, "c1")
    result["content"][0]["content"] = MEDIA["anthropic"]["content"]
    question = [{"role": "user", "content": "Look"}, use, result]
    turns = await told(
        "anthropic",
        [*question, {"role": "assistant", "content": "Seen."}, {"role": "user", "content": "And?"}],
    )
    assert turns[2] == Message(
        "tool", "[image that cannot be shown to this model]", "get_weather", tool_call_id="c1"
    )
    assert isinstance(await told("anthropic", question), str)
