"""The fields of sampling that the endpoints of this dialect share, and their other names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kolosal.engines.worker.sampler_chain import sampler_chain
from kolosal.sampling import MAX_TOKENS_LIMIT, SamplerStage, SamplingParams
from tests.fakes import FakeEngine, app_with, http_client, says

PATHS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/infill": {"input_prefix": "x", "input_suffix": "y"},
}


async def ask(path: str, **fields: Any) -> tuple[FakeEngine, int, dict[str, Any]]:
    engine = FakeEngine(script=says("x"))
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, json={"model": "fake"} | PATHS[path] | fields)
    return engine, response.status_code, response.json()


PLAIN: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.55, "top_k": 5, "min_p": 0.6, "presence_penalty": 1.25, "frequency_penalty": -1.0,
    "repeat_penalty": 1.5, "repeat_last_n": 6, "typical_p": 0.65, "top_n_sigma": 1.55, "xtc_probability": 0.7,
    "xtc_threshold": 0.25, "dynatemp_range": 0.75, "dynatemp_exponent": 2.5, "dry_multiplier": 0.8, "dry_base": 1.6,
    "dry_allowed_length": 3, "dry_penalty_last_n": 100, "mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.85,
    "seed": 7, "ignore_eos": True,
}  # fmt: skip
"""No two are equal, so that one cannot stand for another."""


@pytest.mark.parametrize("path", PATHS)
async def test_each_field_reaches_the_engine_under_its_name(path: str) -> None:
    assert len(set(PLAIN.values())) == len(PLAIN)
    plain, _, _ = await ask(path)
    engine, status, _ = await ask(path, **PLAIN)
    assert status == 200
    [sampling] = [request.sampling for request in engine.requests]
    assert sampling == replace(plain.requests[0].sampling, **PLAIN)
    assert [name for name, value in PLAIN.items() if value == getattr(SamplingParams(), name)] == []


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"typ_p": 0.5}, "typical_p", 0.5), ({"typ_p": 0.5, "typical_p": 0.25}, "typical_p", 0.25),
        ({"repetition_penalty": 1.5}, "repeat_penalty", 1.5),
        ({"repetition_penalty": 1.5, "repeat_penalty": 1.25}, "repeat_penalty", 1.25),
        ({"dry_sequence_breakers": ["a", "b"]}, "dry_sequence_breakers", ("a", "b")),
        ({"dry_sequence_breakers": []}, "dry_sequence_breakers", ()),
        ({"samplers": ["temperature", "top_k"]}, "samplers", (SamplerStage.TEMPERATURE, SamplerStage.TOP_K)),
        ({"samplers": ["typical_p", "temp"]}, "samplers", (SamplerStage.TYPICAL_P, SamplerStage.TEMPERATURE)),
        ({"samplers": []}, "samplers", ()),
        ({"logit_bias": {"50256": -100, "7": 1.5}}, "logit_bias", ((50256, -100.0), (7, 1.5))),
        ({"logit_bias": {}}, "logit_bias", ()),
        ({"n_predict": 5}, "max_tokens", 5), ({"n_predict": -1}, "max_tokens", None),
        ({"n_predict": 2**40}, "max_tokens", MAX_TOKENS_LIMIT), ({"max_tokens": -1}, "max_tokens", None),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")), ({"stop": ""}, "stop", ("",)),
        ({"top_k": 12.0}, "top_k", 12), ({"seed": -5.0, "max_tokens": 9.0}, "max_tokens", 9),
        ({"seed": 2**63 - 1}, "seed", 2**63 - 1), ({"seed": -(2**63)}, "seed", -(2**63)),
        ({"top_p": 0, "typical_p": 0}, "top_p", 0.0), ({"repeat_last_n": -1}, "repeat_last_n", -1),
    ],
    ids=str,
)  # fmt: skip
async def test_other_names_and_shapes_mean_the_same(fields: dict[str, Any], name: str, value: object) -> None:
    for path in PATHS:
        engine, status, _ = await ask(path, **fields)
        assert status == 200
        assert getattr(engine.requests[0].sampling, name) == value


@pytest.mark.parametrize("path", PATHS)
async def test_null_is_no_value(path: str) -> None:
    engine, status, _ = await ask(
        path, **dict.fromkeys([*PLAIN, "samplers", "logit_bias", "typ_p", "n_predict"])
    )
    plain, _, _ = await ask(path)
    assert status == 200
    assert engine.requests == plain.requests


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {str(2**31): 1}}, "logit_bias"), ({"samplers": ["infill"]}, "samplers.0"),
        ({"stop": "x" * 1025}, "stop.0"), ({"top_k": 12.5}, "top_k"), ({"top_k": "12"}, "top_k"), ({"seed": 1e30}, "seed"),
        ({"min_keep": 2}, "min_keep"), ({"adaptive_target": 0.5}, "adaptive_target"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_bad_value_is_a_400_that_names_it(fields: dict[str, Any], param: str) -> None:
    for path in PATHS:
        _, status, body = await ask(path, **fields)
        assert (status, body["error"]["param"]) == (400, param)


async def test_llama_defaults() -> None:
    """What LM Studio's and llama.cpp's clients send where nothing was chosen."""
    defaults = {
        "max_tokens": -1,
        "seed": -1,
        "top_k": -1,
        "top_p": 0,
        "repeat_last_n": -1,
        "stop": [""],
        "grammar": "",
    }
    engine, status, _ = await ask("/v1/chat/completions", **defaults)
    assert status == 200
    [request] = engine.requests
    assert (request.sampling.max_tokens, request.grammar) == (None, None)
    chain = sampler_chain(request.sampling, n_ctx=4096, n_vocab=100, default_seed=7)
    assert [sampler.name for sampler in chain] == ["min_p", "dist"]
    assert chain[-1].arguments == (7,)
