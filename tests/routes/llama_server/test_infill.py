"""`POST /infill`, key by key."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kolosal.errors import UnsupportedFeature
from kolosal.schema import FinishReason, InfillPrompt, TokenDelta, Usage
from tests.fakes import FakeEngine, app_with, http_client, says

GAP: dict[str, Any] = {"input_prefix": "x = ", "input_suffix": "\n"}


def fills(_request: object) -> list[TokenDelta]:
    return [
        TokenDelta("1", (49,)),
        TokenDelta(" +", (32, 43)),
        TokenDelta(" 2", (32, 50), FinishReason.STOP, Usage(6, 5, 2), stop=";"),
    ]


async def ask(engine: FakeEngine, path: str = "/infill", **fields: Any) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, json=GAP | fields)
    return response.status_code, response.json()


@pytest.mark.parametrize("path", ["/infill", "/v1/infill"])
async def test_a_whole_answer_has_llama_servers_keys(path: str) -> None:
    status, body = await ask(FakeEngine(script=fills), path)
    assert status == 200
    timings, settings = body.pop("timings"), body.pop("generation_settings")
    assert settings["temperature"] == 1
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (2, 4, 5)
    assert body == {
        "index": 0, "content": "1 + 2", "tokens": [], "stop": True, "model": "fake", "tokens_predicted": 5,
        "tokens_evaluated": 6, "tokens_cached": 11, "truncated": False, "stop_type": "word", "stopping_word": ";", "id_slot": -1,
        "prompt": "", "has_new_line": False,
    }  # fmt: skip


async def test_a_stream_ends_with_the_event_that_says_so() -> None:
    async with http_client(app_with(FakeEngine(script=fills))) as client:
        response = await client.post("/infill", json=GAP | {"stream": True, "return_tokens": True})
    *frames, end = response.text.split("\n\n")
    assert end == ""
    *pieces, last = [orjson.loads(frame.removeprefix("data: ")) for frame in frames]
    every = {"id_slot": -1, "tokens_evaluated": 0}
    assert pieces == [
        {"index": 0, "content": "1", "tokens": [49], "stop": False, "tokens_predicted": 1, **every},
        {"index": 0, "content": " +", "tokens": [32, 43], "stop": False, "tokens_predicted": 3, **every},
    ]
    assert (last["content"], last["tokens"], last["stop"], last["tokens_predicted"]) == (
        " 2",
        [32, 50],
        True,
        5,
    )
    assert "timings" in last


@pytest.mark.parametrize(
    ("finish", "stop_type"), [(FinishReason.STOP, "eos"), (FinishReason.LENGTH, "limit")]
)
async def test_the_reason_of_the_end_has_llama_servers_name(finish: FinishReason, stop_type: str) -> None:
    _, body = await ask(FakeEngine(script=says("x", finish=finish)))
    assert (body["stop_type"], body["stopping_word"]) == (stop_type, "")


async def test_the_request_reaches_the_engine() -> None:
    engine = FakeEngine(script=says("x"))
    extra = [{"filename": "a.py", "text": "A"}, {"text": "B"}]
    status, _ = await ask(engine, input_extra=extra, prompt="1", n_predict=7, temperature=0.5, top_k=3)
    assert status == 200
    [request] = engine.requests
    assert request.prompt == InfillPrompt("x = ", "\n", "1", (("a.py", "A"), ("tmp", "B")), "input_suffix")
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.top_k) == (7, 0.5, 3)


async def test_without_a_limit_there_is_none() -> None:
    engine = FakeEngine(script=says("x"))
    await ask(engine)
    assert engine.requests[0].sampling.max_tokens is None


async def test_a_model_that_cannot_is_a_400() -> None:
    status, body = await ask(FakeEngine(script=lambda _: [UnsupportedFeature("no", param="input_suffix")]))
    assert (status, body["error"]["code"]) == (400, "unsupported_feature")


async def test_probabilities_come_where_they_are_asked_for() -> None:
    engine = FakeEngine(script=says("x"))
    status, body = await ask(engine, n_probs=5, t_max_predict_ms=500, id_slot=0)
    assert (status, body["completion_probabilities"], engine.requests[0].sampling.logprobs) == (200, [], 5)
