from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.worker.sampler_chain import GREEDY, ChainSampler, sampler_chain
from kolosal.sampling import SamplerStage, SamplingParams

N_CTX, N_VOCAB = 100, 300
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
RESERVED_SEED = 0xFFFF_FFFF
"""llama.cpp's word for "draw one"."""


DRAW = ChainSampler("dist", (7,))
REPEAT = ChainSampler("penalties", (N_VOCAB, 64, 1.1, 0.0, 0.0), n_prompt=64)
BREAKERS = ("\n", ":", '"', "*")


def stages(default_seed: int | None = None, **params: Any) -> list[ChainSampler]:
    given = SamplingParams(**PLAIN | params)
    return sampler_chain(given, n_ctx=N_CTX, n_vocab=N_VOCAB, default_seed=default_seed)


def temperature(t: float, spread: float = 0.0, exponent: float = 1.0) -> ChainSampler:
    return ChainSampler("temp_ext", (t, spread, exponent))


def seed(default_seed: int | None = None, **params: Any) -> int:
    name, [drawn], n_prompt = stages(default_seed, **params)[-1]
    assert (name, n_prompt) == ("dist", 0)
    assert isinstance(drawn, int)
    return drawn


@pytest.mark.parametrize(
    ("params", "stage"),
    [
        ({"top_k": 5}, ChainSampler("top_k", (5,))),
        ({"top_p": 0.5}, ChainSampler("top_p", (0.5, 1))),
        ({"min_p": 0.1}, ChainSampler("min_p", (0.1, 1))),
        ({"temperature": 0.7}, temperature(0.7)),
        ({"frequency_penalty": 0.5}, ChainSampler("penalties", (N_VOCAB, N_CTX, 1.0, 0.5, 0.0))),
        ({"presence_penalty": -1.0}, ChainSampler("penalties", (N_VOCAB, N_CTX, 1.0, 0.0, -1.0))),
        ({"repeat_penalty": 1.1}, REPEAT),
        ({"top_n_sigma": 1.5}, ChainSampler("top_n_sigma", (1.5,))),
        ({"xtc_probability": 0.5}, ChainSampler("xtc", (0.5, 0.1, 1, 7))),
        ({"dry_multiplier": 0.8}, ChainSampler("dry", (0.8, 1.75, 2, N_CTX, BREAKERS), N_CTX)),
        (
            {"dry_multiplier": 0.8, "dry_penalty_last_n": 9},
            ChainSampler("dry", (0.8, 1.75, 2, 9, BREAKERS), 9),
        ),
    ],
)
def test_parameter_has_its_stage(params: dict[str, Any], stage: ChainSampler) -> None:
    assert stages(**params) == [stage, DRAW]


def test_only_what_is_possible_can_be_typical() -> None:
    assert stages(typical_p=0.5) == [
        ChainSampler("min_p", (1e-30, 1)),
        ChainSampler("typical", (0.5, 1)),
        DRAW,
    ]


def test_stages_that_do_nothing_are_left_out() -> None:
    assert stages() == [DRAW]


@pytest.mark.parametrize(
    "params",
    [
        {"xtc_probability": 0.5, "xtc_threshold": 0.6},
        {"dry_multiplier": 0.8, "dry_penalty_last_n": 0},
        {"top_n_sigma": 0.0},
        {"mirostat_tau": 1.0},
        {"top_p": 0.0},
        {"typical_p": 0.0},
        {"top_k": -1},
    ],
)
def test_what_would_change_nothing_is_left_out(params: dict[str, Any]) -> None:
    assert stages(**params) == [DRAW]


def test_stages_come_in_the_order_that_is_asked_for() -> None:
    order = (SamplerStage.MIN_P, SamplerStage.TEMPERATURE, SamplerStage.TOP_K)

    assert stages(top_k=5, top_p=0.5, min_p=0.1, temperature=0.7, samplers=order) == [
        ChainSampler("min_p", (0.1, 1)), temperature(0.7), ChainSampler("top_k", (5,)), DRAW,
    ]  # fmt: skip


def test_the_default_order_is_llama_cpps() -> None:
    everything: dict[str, Any] = {
        "top_k": 5, "top_p": 0.5, "min_p": 0.1, "temperature": 0.7, "repeat_penalty": 1.1, "dry_multiplier": 1.0,
        "top_n_sigma": 1.0, "typical_p": 0.5, "xtc_probability": 0.5,
    }  # fmt: skip

    assert [sampler.name for sampler in stages(**everything)] == [
        "penalties", "dry", "top_n_sigma", "top_k", "min_p", "typical", "top_p", "min_p", "xtc", "temp_ext", "dist",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "last"),
    [
        (1, ChainSampler("mirostat", (N_VOCAB, 7, 5.0, 0.1, 100))),
        (2, ChainSampler("mirostat_v2", (7, 5.0, 0.1))),
    ],
)
def test_mirostat_takes_the_place_of_what_chooses_among_tokens(version: int, last: ChainSampler) -> None:
    chain = stages(
        mirostat=version, top_k=5, min_p=0.1, xtc_probability=0.5, temperature=0.7, repeat_penalty=1.1
    )

    assert chain == [REPEAT, temperature(0.7), last]


def test_dynamic_temperature_moves_between_its_ends() -> None:
    [stage, _] = stages(temperature=1.0, dynatemp_range=0.5, dynatemp_exponent=2.0)

    assert stage == temperature(1.0, 0.5, 2.0)


def test_dynamic_temperature_stays_above_zero() -> None:
    [(name, (t, spread, _), _), _] = stages(temperature=0.5, dynatemp_range=1.0)

    assert name == "temp_ext"
    assert 0 < t - spread < 0.01
    assert t + spread == pytest.approx(1.5)


def test_values_that_would_overflow_are_kept_in_range() -> None:
    chain = stages(temperature=1e-40, repeat_penalty=1e-40)

    assert chain[:2] == [
        ChainSampler("penalties", (N_VOCAB, 64, 0.001, 0.0, 0.0), n_prompt=64),
        temperature(0.001),
    ]


def test_choices_of_a_request_have_seeds_of_their_own() -> None:
    assert [seed(seed=5, seed_offset=k) for k in range(3)] == [5, 6, 7]
    assert [seed(default_seed=5, seed=None, seed_offset=k) for k in range(3)] == [5, 6, 7]


def test_seeds_of_choices_stay_below_the_reserved_one() -> None:
    assert all(seed(seed=RESERVED_SEED, seed_offset=k) < RESERVED_SEED for k in range(3))


def test_stages_come_in_llama_cpps_order() -> None:
    chain = stages(
        top_k=5, top_p=0.5, min_p=0.1, temperature=0.7, presence_penalty=0.5, repeat_penalty=1.1, seed=1
    )

    assert [sampler.name for sampler in chain] == [
        "penalties", "penalties", "top_k", "top_p", "min_p", "temp_ext", "dist",
    ]  # fmt: skip


def test_temperature_zero_is_greedy_whatever_else_is_asked() -> None:
    assert stages(temperature=0.0, top_k=5, top_p=0.5, min_p=0.1) == [GREEDY]


def test_greedy_keeps_the_penalties() -> None:
    assert stages(temperature=0.0, repeat_penalty=1.1) == [REPEAT, GREEDY]


def test_repetition_penalty_looks_back_no_further_than_the_window() -> None:
    looks_back = ChainSampler("penalties", (N_VOCAB, N_CTX, 1.1, 0.0, 0.0), n_prompt=N_CTX)

    assert stages(repeat_penalty=1.1, repeat_last_n=1000)[0] == looks_back
    assert stages(repeat_penalty=1.1, repeat_last_n=-1)[0] == looks_back


def test_repetition_penalty_over_no_tokens_is_off() -> None:
    assert stages(repeat_penalty=1.1, repeat_last_n=0) == [DRAW]


def test_seed_of_the_request_goes_before_the_engines() -> None:
    assert seed(default_seed=3, seed=9) == 9


def test_seed_zero_of_the_request_is_a_seed() -> None:
    assert seed(default_seed=3, seed=0) == 0


def test_seed_of_the_engine_is_used_where_the_request_has_none() -> None:
    assert seed(default_seed=3, seed=None) == 3


@pytest.mark.parametrize("given", ["request", "engine"])
def test_reserved_seed_never_reaches_llama_cpp(given: str) -> None:
    drawn = seed(seed=RESERVED_SEED) if given == "request" else seed(RESERVED_SEED, seed=None)

    assert drawn < RESERVED_SEED


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        (2**32 + 3, 3),
        (2**63 - 1, RESERVED_SEED - 1),
        (-(2**63), 0),
        (-2, RESERVED_SEED - 1),
        (-(2**32) + 9, 9),
    ],
)
def test_seeds_of_64_bits_are_taken_modulo(given: int, drawn: int) -> None:
    assert seed(seed=given) == drawn
    assert seed(default_seed=given, seed=None) == drawn


def test_minus_one_is_no_seed() -> None:
    assert seed(default_seed=3, seed=-1) == 3
    assert len({seed(default_seed=-1, seed=-1) for _ in range(20)}) > 1


def test_drawn_seeds_differ() -> None:
    assert len({seed(seed=None) for _ in range(20)}) > 1


def test_drawn_seeds_are_below_the_reserved_one() -> None:
    assert all(0 <= seed(seed=None) < RESERVED_SEED for _ in range(1000))
