from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.worker.sampler import (
    Draw,
    Greedy,
    MinP,
    Penalties,
    Stage,
    Temperature,
    TopK,
    TopP,
    sampler_stages,
)
from kolosal.schema import SamplingParams

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
RESERVED_SEED = 0xFFFF_FFFF
"""llama.cpp's word for "draw one"."""


def stages(default_seed: int | None = None, **params: Any) -> list[Stage]:
    return sampler_stages(SamplingParams(**PLAIN | params), n_ctx=100, default_seed=default_seed)


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
    ],
)
def test_parameter_has_its_stage(params: dict[str, Any], stage: Stage) -> None:
    assert stages(**params) == [stage, Draw(7)]


def test_stages_that_do_nothing_are_left_out() -> None:
    assert stages() == [Draw(7)]


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
