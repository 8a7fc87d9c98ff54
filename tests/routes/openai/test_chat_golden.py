"""The frames of chat completions, byte for byte, compared with files. Ids and times are replaced."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kolosal.chat.formats import ToolFormat
from kolosal.schema import FinishReason, Usage
from tests.engines.helpers import INFO
from tests.fakes import FakeEngine, Script, app_with, http_client, says
from tests.routes.chats import HELLO

FOLDER = Path(__file__).parent / "golden"
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
CALL = ('<tool_call>\n{"name": "weather", "argum', 'ents": {"city": ', '"Oslo"}}\n</tool_call>')

CASES: dict[str, tuple[Script, dict[str, Any]]] = {
    "chat_text": (says("Hel", "lo", usage=Usage(7, 2, 3)), {}),
    "chat_usage": (
        says("Hello", finish=FinishReason.LENGTH),
        {"stream_options": {"include_usage": True}, "n": 2},
    ),
    "chat_tools": (says("I look.", *CALL), {"tools": TOOLS}),
    "chat_thinking": (says("<think>\nhm\n", "</think>\n\nYes"), {}),
}


def _steady(frames: str) -> str:
    frames = re.sub(r'"id":"(chatcmpl|call)[^"]*"', r'"id":"\1"', frames)
    frames = re.sub(r'"created":\d+', '"created":0', frames)
    frames = re.sub(r'"(\w+_(?:ms|per_second))":[0-9.]+', r'"\1":0', frames)
    return re.sub(r'"fp_[0-9a-f]{10}"', '"fp"', frames)


@pytest.mark.parametrize("name", CASES)
async def test_frames_are_these(name: str) -> None:
    script, fields = CASES[name]
    engine = FakeEngine(script=script)
    engine.info = replace(INFO, tool_format=ToolFormat.HERMES, thinking_tags=("<think>", "</think>"))
    async with http_client(app_with(engine)) as client:
        answer = await client.post("/v1/chat/completions", json=HELLO | {"stream": True} | fields)
    assert answer.status_code == 200
    wanted = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert _steady(answer.text) == wanted
