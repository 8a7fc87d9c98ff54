"""`POST /v1/chat/completions`: answers, key by key."""

from __future__ import annotations

import re

import pytest

from kolosal.engines.memory.policy import Rules
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, FinishReason, Message, TokenDelta, Usage
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client, says
from tests.routes.chats import HELLO, ask, stream


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_a_whole_answer_has_exactly_these_keys(path: str) -> None:
    async with http_client(app_with(FakeEngine(script=says("Hel", "lo é", usage=Usage(7, 2, 3))))) as client:
        response = await client.post(path, json=HELLO)
    assert response.status_code == 200
    body = response.json()
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{24}", body.pop("id"))
    assert re.fullmatch(r"fp_[0-9a-f]{10}", body.pop("system_fingerprint"))
    assert isinstance(body.pop("created"), int)
    timings = body.pop("timings")
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (3, 4, 2)
    assert body == {
        "object": "chat.completion",
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello é", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }


async def test_a_stream_is_role_pieces_reason_done() -> None:
    events = await stream(FakeEngine(script=says("Hel", "", "lo", finish=FinishReason.LENGTH)))
    assert events.pop() == "[DONE]"
    chunks = [event for event in events if isinstance(event, dict)]
    ids = {(c.pop("id"), c.pop("created"), c.pop("system_fingerprint")) for c in chunks}
    assert len(ids) == 1
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{24}", ids.pop()[0])
    rest = {"object": "chat.completion.chunk", "model": "fake"}
    assert chunks == [
        rest
        | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        rest | {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]},
        rest | {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": None}]},
        rest | {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "length"}]},
    ]


async def test_usage_comes_in_a_chunk_of_its_own_where_asked_for() -> None:
    events = await stream(FakeEngine(script=says("a")), stream_options={"include_usage": True})
    chunks = [event for event in events if isinstance(event, dict)]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 3
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 4


async def test_the_request_reaches_the_engine() -> None:
    engine = FakeEngine(script=says("a"))
    messages = [
        {"role": "system", "content": "Be brief", "name": "boss"},
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "x", "tool_call_id": "1"},
    ]
    status, _ = await ask(
        engine, messages=messages, temperature=0, top_p=0.5, top_k=7, min_p=0.1, seed=3, stop=["a", "b"],
        presence_penalty=-1, frequency_penalty=1.5, repeat_penalty=1.1, repeat_last_n=8, ignore_eos=True,
        max_tokens=5, max_completion_tokens=9, user="me", metadata={}, store=False, made_up=1,
    )  # fmt: skip
    assert status == 200
    [request] = engine.requests
    assert request.prompt == ChatPrompt((
        Message("system", "Be brief", "boss"), Message("developer", "a\nb"), Message("assistant", ""), Message("tool", "x", tool_call_id="1"),
    ))  # fmt: skip
    assert request.sampling == SamplingParams(
        temperature=0, top_p=0.5, top_k=7, min_p=0.1, seed=3, stop=("a", "b"), presence_penalty=-1,
        frequency_penalty=1.5, repeat_penalty=1.1, repeat_last_n=8, ignore_eos=True, max_tokens=9,
    )  # fmt: skip


async def test_defaults_are_the_contracts_and_null_is_no_value() -> None:
    engine = FakeEngine(script=says("a"))
    names = [
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "presence_penalty",
    ]
    await ask(engine)
    await ask(engine, **dict.fromkeys(names, None))
    assert [request.sampling for request in engine.requests] == [SamplingParams(max_tokens=128)] * 2


async def test_each_piece_is_sent_when_it_comes() -> None:
    engine = FakeEngine()
    request = AsgiRequest("/v1/chat/completions", HELLO | {"stream": True})
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    assert request.status is None
    engine.streams[0].put(TokenDelta("one"))
    await request.until(b'"one"')
    engine.streams[0].put(TokenDelta("two"))
    await request.until(b'"two"')
    engine.streams[0].put(TokenDelta("", (), FinishReason.STOP, Usage(1, 2)))
    await task
    assert request.content.endswith(b"data: [DONE]\n\n")
    assert request.complete


@pytest.mark.parametrize(
    ("own", "configured", "given", "limit"),
    [
        (None, 128, {}, 128), (None, 300, {}, 300), (None, None, {}, None), (None, -1, {}, None), (50, 300, {}, 50), (-1, 300, {}, None),
        (0, 300, {}, 0), (50, 300, {"max_tokens": 7}, 7), (50, 300, {"n_predict": 8}, 8), (50, 300, {"max_tokens": -1}, None),
        (None, None, {"max_completion_tokens": 9}, 9),
    ],
)  # fmt: skip
async def test_what_max_tokens_is_where_it_is_left_out(
    own: int | None, configured: int | None, given: dict[str, int], limit: int | None
) -> None:
    engine = FakeEngine(script=says("a"))
    engine.rules = Rules(default_max_tokens=own)
    async with http_client(app_with(engine, openai_default_max_tokens=configured)) as client:
        assert (await client.post("/v1/chat/completions", json=HELLO | given)).status_code == 200
    assert engine.requests[0].sampling.max_tokens == limit
