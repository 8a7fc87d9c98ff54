"""`timings` of answers: n tokens have n - 1 times between them."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import pytest

from kolosal.routes.openai.encode import timings
from kolosal.schema import FinishReason, GenerateRequest, TokenDelta, Usage
from tests.fakes import FakeEngine, app_with, http_client


@pytest.mark.parametrize(
    ("tokens", "generations", "seconds", "per_second", "per_token_ms"),
    [(1, 1, 0.0, 0, 0), (1, 1, 0.5, 0, 0), (5, 1, 2.0, 2, 500), (10, 2, 2.0, 4, 250), (5, 1, 0.0, 0, 0), (0, 1, 1.0, 0, 0)],
)  # fmt: skip
def test_a_rate_is_that_of_the_times_between_tokens(
    tokens: int, generations: int, seconds: float, per_second: float, per_token_ms: float
) -> None:
    told = timings(Usage(3, tokens), (1.0, seconds), generations)
    assert told["predicted_per_second"] == per_second
    if seconds:
        assert told["predicted_per_token_ms"] == per_token_ms


def one_token(_request: GenerateRequest) -> Iterable[TokenDelta]:
    yield TokenDelta("a", (7,), FinishReason.LENGTH, Usage(3, 1))


async def test_one_token_rate() -> None:
    async with http_client(app_with(FakeEngine(script=one_token))) as client:
        asked = {"model": "fake", "prompt": "x", "max_tokens": 1}
        told = (await client.post("/v1/completions", json=asked)).json()["timings"]
        ollama = (await client.post("/api/generate", json=asked | {"stream": False})).json()
    assert (told["predicted_n"], told["predicted_ms"], told["predicted_per_second"]) == (1, 0, 0)
    assert (ollama["eval_count"], ollama["eval_duration"]) == (1, 0)


def three_tokens(_request: GenerateRequest) -> Iterable[TokenDelta]:
    yield TokenDelta("a", (7,), usage=Usage(5, 1, 2))
    yield TokenDelta("b", (8,))
    yield TokenDelta("c", (9,), FinishReason.LENGTH, Usage(5, 3, 2))


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ],
)
@pytest.mark.parametrize("asked", [True, False])
async def test_each_piece_has_timings_where_they_are_asked_for(
    path: str, prompt: dict[str, object], asked: bool
) -> None:
    body = {"model": "fake", "stream": True, "timings_per_token": asked, **prompt}
    async with http_client(app_with(FakeEngine(script=three_tokens))) as client:
        frames = (await client.post(path, json=body)).text.split("\n\n")
    chunks = [orjson.loads(frame[6:]) for frame in frames[:-2]]
    pieces = [
        chunk for chunk in chunks if any(text in str(chunk["choices"]) for text in ("'a'", "'b'", "'c'"))
    ]
    told = [piece["timings"] for piece in pieces if "timings" in piece]
    assert [(each["cache_n"], each["prompt_n"], each["predicted_n"]) for each in told] == (
        [(2, 3, 1), (2, 3, 2), (2, 3, 3)] if asked else []
    )
