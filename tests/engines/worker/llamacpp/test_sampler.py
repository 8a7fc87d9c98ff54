"""Each sampler of llama.cpp does what its name says, and none can bring a worker down."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.llamacpp.sampler import LogitBias
from kolosal.errors import InvalidRequest
from kolosal.sampling import SamplerStage
from kolosal.schema import GenerateRequest, Grammar, GrammarKind
from tests.engines.worker.helpers import Answer, InProcessWorker, ask, engine_config
from tests.engines.worker.llamacpp.test_backend import PRECISE

TEXT = "the quick brown fox jumps over the lazy dog"
N_VOCAB = 261
FLAT: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "min_p": 0.0, "seed": 1, "ignore_eos": True}
"""Draws from all tokens as probable as the model holds them."""

EXTREMES: list[dict[str, Any]] = [
    {"temperature": 1e-40}, {"temperature": 5.0}, {"repeat_penalty": 1e-40}, {"repeat_penalty": 10.0},
    {"typical_p": 1e-9}, {"typical_p": 0.99, "top_n_sigma": 0.01}, {"top_n_sigma": 100.0}, {"top_n_sigma": 1e-9},
    {"xtc_probability": 1.0, "xtc_threshold": 0.0}, {"xtc_probability": 1.0, "xtc_threshold": 0.5},
    {"dynatemp_range": 5.0, "dynatemp_exponent": 10.0}, {"dynatemp_range": 1.0, "dynatemp_exponent": 1e-9},
    {"dry_multiplier": 100.0, "dry_base": 100.0, "dry_allowed_length": 0}, {"dry_multiplier": 1.0, "dry_base": 1.0},
    {"dry_multiplier": 1.0, "dry_sequence_breakers": ()}, {"dry_multiplier": 1.0, "dry_sequence_breakers": ("\0", "é🙂")},
    {"mirostat": 1}, {"mirostat": 1, "mirostat_tau": 0.0, "mirostat_eta": 1.0}, {"mirostat": 1, "mirostat_tau": 100.0},
    {"mirostat": 2}, {"mirostat": 2, "mirostat_tau": 0.0, "mirostat_eta": 1.0}, {"mirostat": 2, "mirostat_tau": 100.0},
    {"samplers": ()}, {"logit_bias": tuple((token, -100.0) for token in range(N_VOCAB))},
    {"logit_bias": tuple((token, -100.0) for token in range(N_VOCAB)), "mirostat": 2},
    {"logit_bias": tuple((token, 100.0) for token in range(N_VOCAB)), "typical_p": 0.5},
]  # fmt: skip


@pytest.fixture(scope="module")
def backend(tiny_gguf: Path) -> Iterator[LlamaCppBackend]:
    backend = LlamaCppBackend(engine_config(str(tiny_gguf), **PRECISE), lambda _: None)
    yield backend
    backend.close()


def drawn(backend: LlamaCppBackend, count: int = 60, **sampling: Any) -> Answer:
    request = replace(ask(TEXT, **FLAT | {"max_tokens": count} | sampling), use_cache=False)
    return InProcessWorker(backend).answer(request)


def ranks(answer: Answer) -> list[int]:
    """The rank of each token among the 20 most probable in its place; 20 for those beyond."""
    return [
        next((rank for rank, chance in enumerate(entry.top) if chance.token == entry.chosen.token), 20)
        for entry in answer.logprobs
    ]


@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
def test_extreme_parameters_are_survived(backend: LlamaCppBackend, extreme: dict[str, Any]) -> None:
    assert len(drawn(backend, 20, **extreme).tokens) == 20


@pytest.mark.parametrize(
    "changed",
    [
        {"typical_p": 0.2}, {"top_n_sigma": 0.5}, {"xtc_probability": 1.0, "xtc_threshold": 0.001},
        {"dynatemp_range": 1.0}, {"mirostat": 1, "mirostat_tau": 1.0}, {"mirostat": 2, "mirostat_tau": 1.0},
        {"top_k": 3}, {"top_p": 0.1}, {"min_p": 0.5}, {"temperature": 0.3}, {"seed_offset": 1},
    ],
    ids=str,
)  # fmt: skip
def test_stage_changes_what_is_drawn(backend: LlamaCppBackend, changed: dict[str, Any]) -> None:
    assert drawn(backend, **changed).tokens != drawn(backend).tokens


@pytest.mark.parametrize(
    "sampling", [{"top_n_sigma": 0.5}, {"mirostat": 2}, {"xtc_probability": 1.0}, {"typical_p": 0.2}]
)
def test_seed_repeats_the_text(backend: LlamaCppBackend, sampling: dict[str, Any]) -> None:
    assert drawn(backend, **sampling).tokens == drawn(backend, **sampling).tokens


def test_stages_that_are_left_out_do_nothing(backend: LlamaCppBackend) -> None:
    assert drawn(backend, top_k=1, temperature=0.1, samplers=()).tokens == drawn(backend).tokens


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_keeps_the_k_most_probable(backend: LlamaCppBackend, k: int) -> None:
    assert max(ranks(drawn(backend, top_k=k, logprobs=20))) < k


def test_xtc_removes_the_most_probable(backend: LlamaCppBackend) -> None:
    answer = drawn(backend, top_k=3, xtc_probability=1.0, xtc_threshold=1e-6, logprobs=20)

    assert min(ranks(answer)) >= 2  # an end token among the three is forbidden, too


def test_dry_keeps_the_model_from_repeating_itself(backend: LlamaCppBackend) -> None:
    def repeats(**sampling: Any) -> int:
        tokens = drawn(backend, 200, temperature=0.0, **sampling).tokens
        seen = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
        return sum(count - 1 for count in seen.values())

    assert repeats(dry_multiplier=50.0, dry_allowed_length=1, dry_sequence_breakers=()) < repeats() / 4


# --- bias ---


def test_logits_are_added_to_or_forbidden() -> None:
    row = np.arange(6, dtype=np.float32)

    LogitBias(((1, -100.0), (2, 2.5), (3, 0.0), (4, -99.5)), forbidden=(5,)).apply(row)

    assert row.tolist() == [0.0, -math.inf, 4.5, 3.0, -95.5, -math.inf]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bias_makes_a_token_certain(backend: LlamaCppBackend, temperature: float) -> None:
    answer = drawn(backend, 5, temperature=temperature, logit_bias=((70, 100.0),))

    assert answer.tokens == [70] * 5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bias_forbids_tokens_whatever_their_logits(backend: LlamaCppBackend, temperature: float) -> None:
    banned = tuple((token, -100.0) for token in range(200))
    tokens = drawn(backend, temperature=temperature, logit_bias=banned).tokens

    assert min(tokens) >= 200


@pytest.mark.filterwarnings("ignore:llama_token_get_attr:DeprecationWarning")  # llguidance's
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_grammar_goes_before_what_is_forbidden(backend: LlamaCppBackend, temperature: float) -> None:
    banned = tuple((token, -100.0) for token in range(N_VOCAB))
    request: GenerateRequest = replace(
        ask(TEXT, **FLAT | {"temperature": temperature, "logit_bias": banned, "logprobs": 0}),
        grammar=Grammar(GrammarKind.REGEX, "yes"),
    )

    assert InProcessWorker(backend).answer(request).text == "yes"


def test_token_beyond_the_vocabulary_is_refused(backend: LlamaCppBackend) -> None:
    error = drawn(backend, logit_bias=((N_VOCAB, 1.0),)).error

    assert error is not None
    assert (error.error, error.param) == (InvalidRequest.__name__, "logit_bias")


# --- anything a request may say ---

_UNIT = st.floats(0, 1, width=32)
_ANY: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 5), "top_p": st.floats(0, 1, exclude_min=True), "top_k": st.integers(0, 300),
    "min_p": _UNIT, "presence_penalty": st.floats(-2, 2), "frequency_penalty": st.floats(-2, 2),
    "repeat_penalty": st.floats(0, 10, exclude_min=True), "repeat_last_n": st.integers(0, 1_000_000),
    "typical_p": st.floats(0, 1, exclude_min=True), "top_n_sigma": st.floats(-1, 100), "xtc_probability": _UNIT,
    "xtc_threshold": _UNIT, "dynatemp_range": st.floats(0, 5), "dynatemp_exponent": st.floats(0, 10, exclude_min=True),
    "dry_multiplier": st.floats(0, 100), "dry_base": st.floats(1, 100), "dry_allowed_length": st.integers(0, 1_000_000),
    "dry_penalty_last_n": st.integers(-1, 1_000_000), "mirostat": st.integers(0, 2), "mirostat_tau": st.floats(0, 100),
    "mirostat_eta": _UNIT, "samplers": st.lists(st.sampled_from(SamplerStage), max_size=9).map(tuple),
    "logit_bias": st.dictionaries(st.integers(0, N_VOCAB - 1), st.floats(-100, 100), max_size=300).map(
        lambda biases: tuple(biases.items())
    ),
    "seed": st.integers(0, 2**32 - 1), "logprobs": st.none() | st.integers(0, 20), "ignore_eos": st.booleans(),
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=_ANY))
def test_whatever_a_request_says_it_is_answered(backend: LlamaCppBackend, sampling: dict[str, Any]) -> None:
    answer = drawn(backend, 4, **sampling)

    assert answer.error is None
    assert all(0 <= token < N_VOCAB for token in answer.tokens)
    assert answer.tokens
