"""The frames of completions and infills, byte for byte, compared with files. Ids and times are replaced."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kolosal.schema import FinishReason, Usage
from tests.fakes import FakeEngine, Script, app_with, http_client, says
from tests.routes.llama_server.test_infill import GAP, fills
from tests.routes.openai.test_completion_choices import spells

FOLDER = Path(__file__).parent / "golden"

CASES: dict[str, tuple[str, Script, dict[str, Any]]] = {
    "completion_text": ("/v1/completions", says("Hel", "lo", usage=Usage(7, 2, 3)), {"prompt": "x"}),
    "completion_usage": (
        "/v1/completions",
        says("Hello", finish=FinishReason.LENGTH),
        {"prompt": "x", "stream_options": {"include_usage": True}},
    ),
    "completion_logprobs": ("/v1/completions", spells, {"prompt": "äb", "echo": True, "logprobs": 2}),
    "infill": ("/infill", fills, GAP),
}


def _steady(frames: str) -> str:
    frames = re.sub(r'"id":"cmpl[^"]*"', '"id":"cmpl"', frames)
    frames = re.sub(r'"created":\d+', '"created":0', frames)
    frames = re.sub(r'"fp_[0-9a-f]{10}"', '"fp"', frames)
    return re.sub(r'"(\w+_(?:ms|per_second))":[0-9.e-]+', r'"\1":0', frames)


@pytest.mark.parametrize("name", CASES)
async def test_frames_are_these(name: str) -> None:
    path, script, fields = CASES[name]
    async with http_client(app_with(FakeEngine(script=script))) as client:
        answer = await client.post(path, json={"model": "fake", "stream": True} | fields)
    assert answer.status_code == 200
    wanted = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert _steady(answer.text) == wanted
