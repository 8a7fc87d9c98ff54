"""Several choices, log-probabilities, thoughts and continued turns of `POST /v1/chat/completions`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from kolosal.chat.formats import ToolFormat
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    TokenDelta,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)
from tests.engines.helpers import INFO
from tests.fakes import FakeEngine, says
from tests.routes.chats import HELLO, ask, stream


def _prompt(request: GenerateRequest) -> ChatPrompt:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


async def test_n_choices_are_n_generations_with_seeds_of_their_own() -> None:
    engine = FakeEngine(script=says("a"))
    status, body = await ask(engine, n=3, seed=7)
    assert status == 200
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [(r.sampling.seed, r.sampling.seed_offset) for r in engine.requests] == [(7, 0), (7, 1), (7, 2)]
    assert body["usage"]["completion_tokens"] == 3


async def test_streamed_choices_begin_and_end_each() -> None:
    events = await stream(FakeEngine(script=says("a")), n=2, stream_options={"include_usage": True})
    chunks = [e for e in events if isinstance(e, dict)]
    reasons = [c["choices"][0]["index"] for c in chunks if c["choices"] and c["choices"][0]["finish_reason"]]
    assert sorted(reasons) == [0, 1]
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    assert chunks[-1]["timings"]["predicted_n"] == 1


LOGPROBS = TokenLogprobs(
    TokenLogprob(5, "\xc3", -0.5), (TokenLogprob(5, "\xc3", -0.5), TokenLogprob(6, "a", -1.5))
)


def _with_logprobs(_request: GenerateRequest) -> list[TokenDelta]:
    return [
        TokenDelta("", (5,), logprobs=(LOGPROBS,)),
        TokenDelta(
            "é", (7,), FinishReason.STOP, Usage(1, 2), (TokenLogprobs(TokenLogprob(7, "\xa9", -0.1)),)
        ),
    ]


async def test_logprobs_have_the_bytes_of_each_token() -> None:
    engine = FakeEngine(script=_with_logprobs)
    _, body = await ask(engine, logprobs=True, top_logprobs=2)
    assert engine.requests[0].sampling.logprobs == 2
    first, second = body["choices"][0]["logprobs"]["content"]
    assert first["bytes"] == [0xC3]
    assert first["token"] == "\N{REPLACEMENT CHARACTER}"
    assert [top["logprob"] for top in first["top_logprobs"]] == [-0.5, -1.5]
    assert (second["bytes"], second["top_logprobs"]) == ([0xA9], [])
    assert math.isclose(second["logprob"], -0.1)


async def test_streamed_logprobs_come_with_their_pieces() -> None:
    events = await stream(FakeEngine(script=_with_logprobs), logprobs=True)
    found = [
        entry["bytes"]
        for event in events
        if isinstance(event, dict)
        for entry in (event["choices"][0].get("logprobs") or {}).get("content", [])
    ]
    assert found == [[0xC3], [0xA9]]


async def test_thoughts_are_split_from_the_answer() -> None:
    engine = FakeEngine(script=says("<think>\nhm, ", "well\n</think>\n\n", "Yes"))
    engine.info = replace(INFO, tool_format=ToolFormat.HERMES, thinking_tags=("<think>", "</think>"))
    _, body = await ask(engine)
    message = body["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm, well", "Yes")
    deltas = [e["choices"][0]["delta"] for e in await stream(engine) if isinstance(e, dict)]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "hm, well"
    assert "".join(d.get("content", "") for d in deltas) == "Yes"


@pytest.mark.parametrize(
    ("fields", "kwargs"),
    [
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {"enable_thinking": True}),
    ],
)
async def test_template_variables_reach_the_engine(fields: dict[str, Any], kwargs: dict[str, Any]) -> None:
    engine = FakeEngine(script=says("a"))
    await ask(engine, **fields)
    assert _prompt(engine.requests[0]).template_kwargs == kwargs


async def test_the_last_turn_is_continued_where_asked_for() -> None:
    engine = FakeEngine(script=says(" there"))
    messages = [*HELLO["messages"], {"role": "assistant", "content": "Hello"}]
    await ask(engine, messages=messages, continue_final_message=True, add_generation_prompt=False)
    await ask(engine, messages=messages)
    assert [_prompt(request).continues for request in engine.requests] == [True, False]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"thinking": ["x"]}}, "chat_template_kwargs.thinking"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    status, body = await ask(FakeEngine(script=says("a")), **fields)
    assert (status, body["error"]["param"]) == (400, param)
