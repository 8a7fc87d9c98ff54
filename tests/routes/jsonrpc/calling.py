"""Calling methods over HTTP, and what models say in answer, as the tests of this dialect do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx

from kolosal.schema import ChatPrompt, FinishReason, GenerateRequest, Message, TokenDelta, ToolMode, Usage
from tests.fakes import FakeEngine, Script, app_with, http_client

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

CALL = '{"tool": "weather", "parameters": {"city": "Oslo"}}'
NATIVE_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
CALLED = {"tool": "weather", "parameters": {"city": "Oslo"}}
"""The same call, as a model writes it, as one whose template knows no tools does, and as clients get it."""


def prompt_of(request: GenerateRequest) -> ChatPrompt:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


def turns_of(request: GenerateRequest) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in prompt_of(request).messages]


def last_of(request: GenerateRequest) -> Message:
    return prompt_of(request).messages[-1]


def calls_tools(*pieces: str, otherwise: str = "It rains.") -> Script:
    """A model that says these pieces whenever it has tools, and something else whenever it has none."""

    def script(request: GenerateRequest) -> Iterable[TokenDelta]:
        has_tools = bool(prompt_of(request).tool_use.callable)
        said = pieces if has_tools else (otherwise,)
        for piece in said:
            yield TokenDelta(piece)
        yield TokenDelta("", (), FinishReason.STOP, Usage(3, len(said)))

    return script


def may_call_tools(request: GenerateRequest) -> bool:
    return prompt_of(request).tool_use.mode is not ToolMode.NONE


async def post(engine: FakeEngine | None, content: object, **settings: Any) -> httpx.Response:
    engines = () if engine is None else (engine,)
    async with http_client(app_with(*engines, **settings)) as client:
        if isinstance(content, str | bytes):
            return await client.post("/rpc", content=content)
        return await client.post("/rpc", json=content)


def request(method: str = "create_message", id: object = 1, **params: Any) -> dict[str, Any]:  # noqa: A002
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": id}


async def create(engine: FakeEngine, **params: Any) -> dict[str, Any]:
    """The result of `create_message`."""
    response = await post(engine, request(**params))
    assert response.status_code == 200
    answer = response.json()
    assert answer.keys() == {"jsonrpc", "result", "id"}, answer
    result: dict[str, Any] = answer["result"]
    assert result.keys() == {"type", "content", "history", "iteration_count"}
    return result


def turn(role: str, content: str | None = None, **fields: Any) -> dict[str, Any]:
    """A turn as answers have it: with all six keys."""
    empty = dict.fromkeys(("tool_calls", "tool_name", "tool_result", "tool_error"))
    return {"role": role, "content": content, **empty, **fields}
