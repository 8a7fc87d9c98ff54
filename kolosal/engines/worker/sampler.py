"""Which llama.cpp samplers a request needs, in which order. Pure; `llamacpp` builds the native chain from it.

The order is llama.cpp's own: forbidden tokens, penalties, top-k, top-p, min-p, temperature, then the draw.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeAlias

from kolosal.schema import SamplingParams


@dataclass(frozen=True, slots=True)
class ForbidEnd:
    """Never choose a token that ends a generation."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """Lower the logits of tokens seen among the last `last_n`; `sees_prompt` counts the prompt's tokens too."""

    last_n: int
    repeat: float
    frequency: float
    presence: float
    sees_prompt: bool


@dataclass(frozen=True, slots=True)
class TopK:
    k: int


@dataclass(frozen=True, slots=True)
class TopP:
    p: float


@dataclass(frozen=True, slots=True)
class MinP:
    p: float


@dataclass(frozen=True, slots=True)
class Temperature:
    t: float


@dataclass(frozen=True, slots=True)
class Draw:
    """Pick by probability."""

    seed: int


@dataclass(frozen=True, slots=True)
class Greedy:
    """Pick the most probable."""


Stage: TypeAlias = ForbidEnd | Penalties | TopK | TopP | MinP | Temperature | Draw | Greedy


def sampler_stages(params: SamplingParams, *, n_ctx: int, default_seed: int | None) -> list[Stage]:
    """The chain for a request; stages that would do nothing are left out.

    The OpenAI penalties look at all text generated so far, the repetition penalty at the last `repeat_last_n` tokens
    with the prompt's. `n_ctx` stands for "all": llama.cpp keeps that many.
    """
    stages: list[Stage] = [ForbidEnd()] if params.ignore_eos else []
    if params.frequency_penalty or params.presence_penalty:
        stages.append(
            Penalties(n_ctx, 1.0, params.frequency_penalty, params.presence_penalty, sees_prompt=False)
        )
    if params.repeat_penalty != 1.0 and params.repeat_last_n:
        last_n = min(params.repeat_last_n, n_ctx)
        stages.append(Penalties(last_n, params.repeat_penalty, 0.0, 0.0, sees_prompt=True))
    if params.temperature == 0:
        return [*stages, Greedy()]
    if params.top_k:
        stages.append(TopK(params.top_k))
    if params.top_p < 1:
        stages.append(TopP(params.top_p))
    if params.min_p:
        stages.append(MinP(params.min_p))
    if params.temperature != 1:
        stages.append(Temperature(params.temperature))
    return [*stages, Draw(_seed(params.seed, default_seed))]


def _seed(asked: int | None, default: int | None) -> int:
    """A seed below llama.cpp's reserved 0xFFFFFFFF, which would mean "random"."""
    seed = asked if asked is not None else default
    return secrets.randbelow(2**32 - 1) if seed is None else min(seed, 2**32 - 2)
