"""Asking for messages, as the tests of this dialect do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes import FakeEngine, app_with, http_client

HELLO: dict[str, Any] = {
    "model": "fake",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Hello"}],
}

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
"""How a model whose template knows no tools writes a call."""

GOLDEN = Path(__file__).parent / "golden"


async def ask(engine: FakeEngine, **fields: Any) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/messages", json=HELLO | fields)
    return response.status_code, response.json()


def golden(name: str) -> str:
    """The frames of a stream as they must be, with `msg_ID` for the id."""
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
