"""`POST /v1/completions`, key by key."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from kolosal.errors import ContextLengthExceeded, EngineDied, QueueFull
from kolosal.sampling import SamplingParams
from kolosal.schema import FinishReason, GenerateRequest, TextPrompt, TokenDelta, Usage
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client, says


def echo(request: GenerateRequest) -> list[TokenDelta]:
    assert isinstance(request.prompt, TextPrompt)
    text = request.prompt.text
    return [TokenDelta(text.upper()), TokenDelta("!", (), FinishReason.STOP, Usage(len(text), 2))]


TIMINGS = {
    f"{of}_{what}" for of in ("prompt", "predicted") for what in ("n", "ms", "per_token_ms", "per_second")
}


def assert_timings(timings: dict[str, float]) -> None:
    assert set(timings) == TIMINGS | {"cache_n"}
    assert min(timings.values()) >= 0


async def ask(engine: FakeEngine, **fields: Any) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/completions", json={"model": "fake"} | fields)
    return response.status_code, response.json()


@pytest.mark.parametrize("path", ["/v1/completions", "/completions"])
async def test_a_whole_answer_has_exactly_these_keys(path: str) -> None:
    engine = FakeEngine(script=says("a", "b", finish=FinishReason.LENGTH))
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, json={"model": "fake", "prompt": "Once"})
    assert response.status_code == 200
    body = response.json()
    assert re.fullmatch(r"cmpl-[A-Za-z0-9]{24}", body.pop("id"))
    assert isinstance(body.pop("created"), int)
    assert re.fullmatch(r"fp_[0-9a-f]{10}", body.pop("system_fingerprint"))
    assert_timings(body.pop("timings"))
    assert body == {
        "object": "text_completion",
        "model": "fake",
        "choices": [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0},
        },
    }  # fmt: skip
    assert engine.requests == [GenerateRequest(TextPrompt("Once"), SamplingParams(max_tokens=16))]


async def test_several_prompts_are_one_choice_each_and_usage_is_summed() -> None:
    status, body = await ask(FakeEngine(script=echo), prompt=["ab", "c", "def"])
    assert status == 200
    assert [(c["index"], c["text"]) for c in body["choices"]] == [(0, "AB!"), (1, "C!"), (2, "DEF!")]
    assert body["usage"]["prompt_tokens"] == 6
    assert body["usage"]["completion_tokens"] == 6


async def test_a_stream_is_empty_pieces_empty_done() -> None:
    async with http_client(app_with(FakeEngine(script=says("a", "b")))) as client:
        response = await client.post("/completions", json={"model": "fake", "prompt": "x", "stream": True})
    *frames, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [orjson.loads(frame.removeprefix("data: ")) for frame in frames]
    assert_timings(chunks[-1].pop("timings"))
    assert re.fullmatch(r"cmpl-[A-Za-z0-9]{24}", chunks[0]["id"])
    assert (
        len({(chunk.pop("id"), chunk.pop("created"), chunk.pop("system_fingerprint")) for chunk in chunks})
        == 1
    )
    assert chunks == [
        {"object": "text_completion", "model": "fake", "choices": [choice]}
        for choice in (
            {"text": "", "index": 0, "logprobs": None, "finish_reason": None},
            {"text": "a", "index": 0, "logprobs": None, "finish_reason": None},
            {"text": "b", "index": 0, "logprobs": None, "finish_reason": None},
            {"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"},
        )
    ]


async def test_streams_of_several_prompts_interleave_as_they_come() -> None:
    engine = FakeEngine()
    body = {"model": "fake", "prompt": ["x", "y"], "stream": True, "stream_options": {"include_usage": True}}
    request = AsgiRequest("/v1/completions", body)
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    first, second = engine.streams
    second.put(TokenDelta("s1"))
    first.put(TokenDelta("f1"))
    await request.until(b"s1")
    await request.until(b"f1")
    second.put(TokenDelta("s2", (), FinishReason.STOP, Usage(1, 2)))
    await request.until(b"stop")
    first.put(TokenDelta("f2", (), FinishReason.LENGTH, Usage(10, 20)))
    await task
    chunks = [orjson.loads(f[6:]) for f in request.content.decode().split("\n\n")[:-2]]
    choices = [(c["index"], c["text"], c["finish_reason"]) for chunk in chunks for c in chunk["choices"]]
    assert choices[:2] == [(0, "", None), (1, "", None)]
    assert sorted(choices[2:4]) == [(0, "f1", None), (1, "s1", None)]
    assert choices[4:] == [(1, "s2", None), (1, "", "stop"), (0, "f2", None), (0, "", "length")]
    assert chunks[-1]["usage"]["total_tokens"] == 33


async def test_leaving_aborts_every_prompt() -> None:
    engine = FakeEngine()
    request = AsgiRequest("/v1/completions", {"model": "fake", "prompt": ["x", "y", "z"], "stream": True})
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    for stream in engine.streams:
        stream.put(TokenDelta("a"))
    await request.until(b'"a"')
    request.leave()
    await task
    assert engine.aborted == [0, 1, 2]


async def test_when_one_prompt_is_refused_the_others_are_given_up() -> None:
    engine = FakeEngine()
    engine.script = lambda r: [ContextLengthExceeded("long")] if r.prompt == TextPrompt("y") else []
    status, body = await ask(engine, prompt=["x", "y"], stream=True)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    assert engine.aborted == [0]


async def test_when_the_queue_is_full_half_way_what_was_submitted_is_given_up() -> None:
    engine = FakeEngine()
    engine.refusal, engine.refuse_from = QueueFull("full"), 2
    status, _ = await ask(engine, prompt=["x", "y", "z"])
    assert status == 429
    assert engine.aborted == [0, 1]


@pytest.mark.parametrize("streaming", [False, True])
async def test_when_all_prompts_fail_at_once_it_is_told_once(streaming: bool) -> None:
    engine = FakeEngine(script=lambda _: [TokenDelta("a"), EngineDied("gone")])
    async with http_client(app_with(engine)) as client:
        body = {"model": "fake", "prompt": ["x", "y", "z"], "stream": streaming}
        response = await client.post("/v1/completions", json=body)
    assert response.text.count('"gone"') == 1
    assert "[DONE]" not in response.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": [1, "x"]}, "prompt.1"), ({"prompt": ["x", 1]}, "prompt.1"),
        ({"prompt": ["x"] * 43, "n": 3}, "n"), ({"prompt": ["x"] * 43, "best_of": 3}, "best_of"),
        ({"prompt": "x", "n": 3, "best_of": 2}, "best_of"), ({"prompt": "x", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "x", "suffix": "y", "echo": True}, "echo"), ({"prompt": [1], "suffix": "y"}, "prompt"),
        ({"prompt": "x", "top_logprobs": 2}, "top_logprobs"), ({"prompt": "x", "lora": [{"id": 0}]}, "lora"),
    ],
)  # fmt: skip
async def test_what_does_not_go_together_is_named(fields: dict[str, Any], param: str) -> None:
    status, body = await ask(FakeEngine(script=says("a")), **fields)
    assert (status, body["error"]["param"]) == (400, param)


async def test_a_prompt_is_required() -> None:
    status, body = await ask(FakeEngine(script=says("a")))
    assert (status, body["error"]["message"]) == (400, "Missing required fields (model, prompt)")
