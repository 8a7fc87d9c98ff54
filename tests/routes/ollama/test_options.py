"""`options` reach the sampler, with Ollama's defaults and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.routes.ollama.options import IGNORED_OPTIONS
from kolosal.sampling import MAX_TOKENS_LIMIT, SamplingParams
from tests.fakes import FakeEngine, says
from tests.routes.ollama.asking import generate, refused


async def sampled(options: dict[str, Any] | None, **fields: Any) -> SamplingParams:
    engine = FakeEngine(script=says("a"))
    await generate(engine, prompt="a", options=options, **fields)
    return engine.requests[0].sampling


@pytest.mark.parametrize("options", [None, {}, {"temperature": None, "stop": None}])
async def test_defaults_are_ollamas(options: dict[str, Any] | None) -> None:
    assert await sampled(options) == SamplingParams(
        temperature=0.8, top_k=40, top_p=0.9, min_p=0.0, typical_p=1.0, repeat_last_n=64, repeat_penalty=1.0,
        presence_penalty=0.0, frequency_penalty=0.0, seed=None, max_tokens=None, stop=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "field", "sampled_as"),
    [
        ("temperature", 0, "temperature", 0), ("temperature", 1.5, "temperature", 1.5), ("top_p", 0.5, "top_p", 0.5),
        ("top_k", 5, "top_k", 5), ("top_k", 40.0, "top_k", 40), ("top_k", -1, "top_k", -1), ("min_p", 0.1, "min_p", 0.1), ("typical_p", 0.7, "typical_p", 0.7),
        ("repeat_last_n", 8, "repeat_last_n", 8), ("repeat_last_n", -1, "repeat_last_n", -1),
        ("repeat_penalty", 1.1, "repeat_penalty", 1.1), ("presence_penalty", 1, "presence_penalty", 1),
        ("frequency_penalty", -1, "frequency_penalty", -1), ("mirostat", 2, "mirostat", 2),
        ("mirostat_tau", 4, "mirostat_tau", 4), ("mirostat_eta", 0.2, "mirostat_eta", 0.2), ("seed", 7, "seed", 7),
        ("seed", 0, "seed", 0), ("seed", -7, "seed", -1), ("seed", 2**32 + 3, "seed", 2**32 + 3), ("num_predict", 2**40, "max_tokens", MAX_TOKENS_LIMIT), ("num_predict", 9, "max_tokens", 9),
        ("num_predict", -1, "max_tokens", None), ("num_predict", -2, "max_tokens", None), ("num_predict", 0, "max_tokens", None),
        ("stop", ["a", "b"], "stop", ("a", "b")), ("stop", "a", "stop", ("a",)), ("stop", "", "stop", ("",)),
    ],
)  # fmt: skip
async def test_an_option_reaches_the_sampler(
    option: str, value: object, field: str, sampled_as: object
) -> None:
    assert getattr(await sampled({option: value}), field) == sampled_as


async def test_options_for_loading_and_unknown_ones_change_nothing() -> None:
    ignored: dict[str, Any] = dict.fromkeys(IGNORED_OPTIONS, 1) | {"made_up": "x"}
    assert await sampled(ignored) == await sampled(None)


@pytest.mark.parametrize(
    ("stop", "path"),
    [(["x" * 1025], "options.stop.0"), ("x" * 1025, "options.stop.0"), (["x"] * 65, "options.stop")],
    ids=["long", "long, alone", "many"],
)
async def test_stop_strings_have_the_bounds_of_sampling(stop: object, path: str) -> None:
    engine = FakeEngine(script=says("a"))
    status, error = await refused(engine, "/api/generate", prompt="a", options={"stop": stop})
    assert (status, error.split()[0]) == (400, path)
    assert not engine.requests


async def test_logprobs_are_asked_for_with_both_fields() -> None:
    assert (await sampled(None, logprobs=True)).logprobs == 0
    assert (await sampled(None, logprobs=True, top_logprobs=20)).logprobs == 20
    assert (await sampled(None, top_logprobs=2)).logprobs is None
    status, error = await refused(FakeEngine(), "/api/generate", prompt="a", top_logprobs=21)
    assert (status, error) == (400, "top_logprobs must be between 0 and 20, not 21")
