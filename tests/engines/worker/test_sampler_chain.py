from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.worker.sampler_chain import (
    Bias,
    Draw,
    Dry,
    Greedy,
    MinP,
    Mirostat,
    Penalties,
    Stage,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    Typical,
    Xtc,
    sampler_chain,
)
from kolosal.sampling import SamplerStage, SamplingParams

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
RESERVED_SEED = 0xFFFF_FFFF
"""llama.cpp's word for "draw one"."""


def stages(default_seed: int | None = None, **params: Any) -> list[Stage]:
    return sampler_chain(SamplingParams(**PLAIN | params), n_ctx=100, default_seed=default_seed)


def seed(default_seed: int | None = None, **params: Any) -> int:
    last = stages(default_seed, **params)[-1]
    assert isinstance(last, Draw)
    return last.seed


@pytest.mark.parametrize(
    ("params", "stage"),
    [
        ({"top_k": 5}, TopK(5)),
        ({"top_p": 0.5}, TopP(0.5)),
        ({"min_p": 0.1}, MinP(0.1)),
        ({"temperature": 0.7}, Temperature(0.7)),
        ({"frequency_penalty": 0.5}, Penalties(100, 1.0, 0.5, 0.0, sees_prompt=False)),
        ({"presence_penalty": -1.0}, Penalties(100, 1.0, 0.0, -1.0, sees_prompt=False)),
        ({"repeat_penalty": 1.1}, Penalties(64, 1.1, 0.0, 0.0, sees_prompt=True)),
        ({"typical_p": 0.5}, Typical(0.5)),
        ({"top_n_sigma": 1.5}, TopNSigma(1.5)),
        ({"xtc_probability": 0.5}, Xtc(0.5, 0.1, 7)),
        ({"dry_multiplier": 0.8}, Dry(0.8, 1.75, 2, 100, ("\n", ":", '"', "*"))),
        ({"dry_multiplier": 0.8, "dry_penalty_last_n": 9}, Dry(0.8, 1.75, 2, 9, ("\n", ":", '"', "*"))),
        ({"ignore_eos": True}, Bias(forbids_end=True)),
        ({"logit_bias": ((5, -100.0), (6, 2.0), (7, 0.0))}, Bias((5,), ((6, 2.0),))),
    ],
)
def test_parameter_has_its_stage(params: dict[str, Any], stage: Stage) -> None:
    assert stages(**params) == [stage, Draw(7)]


def test_stages_that_do_nothing_are_left_out() -> None:
    assert stages() == [Draw(7)]


@pytest.mark.parametrize(
    "params",
    [
        {"xtc_probability": 0.5, "xtc_threshold": 0.6},
        {"dry_multiplier": 0.8, "dry_penalty_last_n": 0},
        {"top_n_sigma": 0.0},
        {"mirostat_tau": 1.0},
        {"logit_bias": ((5, 0.0),)},
    ],
)
def test_what_would_change_nothing_is_left_out(params: dict[str, Any]) -> None:
    assert stages(**params) == [Draw(7)]


def test_stages_come_in_the_order_that_is_asked_for() -> None:
    order = (SamplerStage.MIN_P, SamplerStage.TEMPERATURE, SamplerStage.TOP_K)

    assert stages(top_k=5, top_p=0.5, min_p=0.1, temperature=0.7, samplers=order) == [
        MinP(0.1), Temperature(0.7), TopK(5), Draw(7),
    ]  # fmt: skip


def test_the_default_order_is_llama_cpps() -> None:
    everything: dict[str, Any] = {
        "top_k": 5, "top_p": 0.5, "min_p": 0.1, "temperature": 0.7, "repeat_penalty": 1.1, "dry_multiplier": 1.0,
        "top_n_sigma": 1.0, "typical_p": 0.5, "xtc_probability": 0.5, "logit_bias": ((1, 1.0),),
    }  # fmt: skip

    assert [type(stage) for stage in stages(**everything)] == [
        Bias, Penalties, Dry, TopNSigma, TopK, Typical, TopP, MinP, Xtc, Temperature, Draw,
    ]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_takes_the_place_of_what_chooses_among_tokens(version: int) -> None:
    chain = stages(
        mirostat=version, top_k=5, min_p=0.1, xtc_probability=0.5, temperature=0.7, repeat_penalty=1.1
    )

    assert chain == [
        Penalties(64, 1.1, 0.0, 0.0, sees_prompt=True), Temperature(0.7), Mirostat(version, 5.0, 0.1, 7),
    ]  # fmt: skip


def test_dynamic_temperature_moves_between_its_ends() -> None:
    [stage, _] = stages(temperature=1.0, dynatemp_range=0.5, dynatemp_exponent=2.0)

    assert stage == Temperature(1.0, 0.5, 2.0)


def test_dynamic_temperature_stays_above_zero() -> None:
    [stage, _] = stages(temperature=0.5, dynatemp_range=1.0)

    assert isinstance(stage, Temperature)
    assert 0 < stage.t - stage.spread < 0.01
    assert stage.t + stage.spread == pytest.approx(1.5)


def test_values_that_would_overflow_are_kept_in_range() -> None:
    chain = stages(temperature=1e-40, repeat_penalty=1e-40)

    assert chain[:2] == [Penalties(64, 0.001, 0.0, 0.0, sees_prompt=True), Temperature(0.001)]


def test_choices_of_a_request_have_seeds_of_their_own() -> None:
    assert [seed(seed=5, seed_offset=k) for k in range(3)] == [5, 6, 7]
    assert [seed(default_seed=5, seed=None, seed_offset=k) for k in range(3)] == [5, 6, 7]


def test_seeds_of_choices_stay_below_the_reserved_one() -> None:
    assert all(seed(seed=RESERVED_SEED, seed_offset=k) < RESERVED_SEED for k in range(3))


def test_stages_come_in_llama_cpps_order() -> None:
    chain = stages(
        top_k=5, top_p=0.5, min_p=0.1, temperature=0.7, presence_penalty=0.5, repeat_penalty=1.1, seed=1
    )

    assert [type(stage) for stage in chain] == [Penalties, Penalties, TopK, TopP, MinP, Temperature, Draw]


def test_temperature_zero_is_greedy_whatever_else_is_asked() -> None:
    assert stages(temperature=0.0, top_k=5, top_p=0.5, min_p=0.1) == [Greedy()]


def test_greedy_keeps_the_penalties() -> None:
    assert stages(temperature=0.0, repeat_penalty=1.1) == [
        Penalties(64, 1.1, 0.0, 0.0, sees_prompt=True),
        Greedy(),
    ]


def test_repetition_penalty_looks_back_no_further_than_the_window() -> None:
    assert stages(repeat_penalty=1.1, repeat_last_n=1000)[0] == Penalties(
        100, 1.1, 0.0, 0.0, sees_prompt=True
    )


def test_repetition_penalty_over_no_tokens_is_off() -> None:
    assert stages(repeat_penalty=1.1, repeat_last_n=0) == [Draw(7)]


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


def test_drawn_seeds_differ() -> None:
    assert len({seed(seed=None) for _ in range(20)}) > 1


def test_drawn_seeds_are_below_the_reserved_one() -> None:
    assert all(0 <= seed(seed=None) < RESERVED_SEED for _ in range(1000))
