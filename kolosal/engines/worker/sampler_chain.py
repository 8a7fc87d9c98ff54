"""The sampler chain of a request: which stages it needs, in which order. Pure; `llamacpp/sampler.py` builds it.

What a request forbids and biases comes first, then the stages in the order the request gives, which is llama.cpp's own
unless it says otherwise, then the draw. Values that llama.cpp would overflow on are kept in a range where they mean the
same. `SamplerStage` names the source of each.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from kolosal.sampling import SamplerStage, SamplingParams

FORBIDDING_BIAS = -100.0
"""A bias of this or less forbids the token."""

_LEAST_TEMPERATURE = 0.001
"""Logits divided by less overflow, and then the draw goes wrong; at this one nothing but the most probable token is drawn."""

_LEAST_REPEAT_PENALTY = 0.001
"""The same for logits divided by the repetition penalty."""

_SEEDS = 2**32 - 1
"""Seeds are below this: llama.cpp's 0xFFFFFFFF means "random"."""


@dataclass(frozen=True, slots=True)
class Bias:
    """Change logits: `forbidden` tokens are never chosen unless nothing else is left; `added` is (token, amount)."""

    forbidden: tuple[int, ...] = ()
    added: tuple[tuple[int, float], ...] = ()
    forbids_end: bool = False
    """Whether the tokens that end a generation are forbidden too."""


@dataclass(frozen=True, slots=True)
class Penalties:
    """Lower the logits of tokens seen among the last `last_n`; `sees_prompt` counts the prompt's tokens too."""

    last_n: int
    repeat: float
    frequency: float
    presence: float
    sees_prompt: bool


@dataclass(frozen=True, slots=True)
class Dry:
    """Lower the logits of tokens that would repeat what was said within the last `last_n` tokens, the prompt's included.

    By `multiplier * base ** (length - allowed_length)`, where so many tokens would be repeated; `breakers` end a repetition.
    """

    multiplier: float
    base: float
    allowed_length: int
    last_n: int
    breakers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopNSigma:
    n: float


@dataclass(frozen=True, slots=True)
class TopK:
    k: int


@dataclass(frozen=True, slots=True)
class Typical:
    p: float


@dataclass(frozen=True, slots=True)
class TopP:
    p: float


@dataclass(frozen=True, slots=True)
class MinP:
    p: float


@dataclass(frozen=True, slots=True)
class Xtc:
    probability: float
    threshold: float
    seed: int


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divide the logits by `t`, give or take `spread`, which grows with the entropy to the power of `exponent`."""

    t: float
    spread: float = 0.0
    exponent: float = 1.0


@dataclass(frozen=True, slots=True)
class Mirostat:
    """Pick so that the surprise stays near `tau` bits (https://arxiv.org/abs/2007.14966)."""

    version: int
    tau: float
    eta: float
    seed: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Pick by probability."""

    seed: int


@dataclass(frozen=True, slots=True)
class Greedy:
    """Pick the most probable."""


Stage: TypeAlias = (
    Bias
    | Penalties
    | Dry
    | TopNSigma
    | TopK
    | Typical
    | TopP
    | MinP
    | Xtc
    | Temperature
    | Mirostat
    | Draw
    | Greedy
)


def sampler_chain(params: SamplingParams, *, n_ctx: int, default_seed: int | None) -> list[Stage]:
    """The chain for a request; stages that would do nothing are left out.

    Temperature 0 is the most probable token after penalties, whatever else is asked for. Mirostat takes the place of all
    stages but penalties and temperature.
    """
    seed = _seed(params, default_seed)
    stages = _bias(params)
    only: tuple[SamplerStage, ...] = params.samplers
    if params.temperature == 0:
        only = (SamplerStage.PENALTIES, SamplerStage.DRY)
    elif params.mirostat:
        only = (SamplerStage.PENALTIES, SamplerStage.DRY, SamplerStage.TEMPERATURE)
    for name in params.samplers:
        if name in only:
            stages += _stage(name, params, n_ctx, seed)
    if params.temperature == 0:
        return [*stages, Greedy()]
    if params.mirostat:
        return [*stages, Mirostat(params.mirostat, params.mirostat_tau, params.mirostat_eta, seed)]
    return [*stages, Draw(seed)]


def _bias(params: SamplingParams) -> list[Stage]:
    forbidden = tuple(token for token, bias in params.logit_bias if bias <= FORBIDDING_BIAS)
    added = tuple((token, bias) for token, bias in params.logit_bias if bias > FORBIDDING_BIAS and bias)
    if not (forbidden or added or params.ignore_eos):
        return []
    return [Bias(forbidden, added, params.ignore_eos)]


def _stage(name: SamplerStage, params: SamplingParams, n_ctx: int, seed: int) -> list[Stage]:
    match name:
        case SamplerStage.PENALTIES:
            return _penalties(params, n_ctx)
        case SamplerStage.DRY:
            return _dry(params, n_ctx)
        case SamplerStage.TOP_N_SIGMA:
            return [TopNSigma(params.top_n_sigma)] if params.top_n_sigma > 0 else []
        case SamplerStage.TOP_K:
            return [TopK(params.top_k)] if params.top_k else []
        case SamplerStage.TYPICAL_P:
            return [Typical(params.typical_p)] if params.typical_p < 1 else []
        case SamplerStage.TOP_P:
            return [TopP(params.top_p)] if params.top_p < 1 else []
        case SamplerStage.MIN_P:
            return [MinP(params.min_p)] if params.min_p else []
        case SamplerStage.XTC:
            removes = params.xtc_probability > 0 and params.xtc_threshold <= 0.5
            return [Xtc(params.xtc_probability, params.xtc_threshold, seed)] if removes else []
        case SamplerStage.TEMPERATURE:
            return _temperature(params)
        case _:
            assert_never(name)


def _penalties(params: SamplingParams, n_ctx: int) -> list[Stage]:
    """The OpenAI penalties look at all text generated so far, the repetition penalty at the last `repeat_last_n` tokens
    with the prompt's. `n_ctx` stands for "all": llama.cpp keeps that many."""
    stages: list[Stage] = []
    if params.frequency_penalty or params.presence_penalty:
        stages.append(
            Penalties(n_ctx, 1.0, params.frequency_penalty, params.presence_penalty, sees_prompt=False)
        )
    if params.repeat_penalty != 1.0 and params.repeat_last_n:
        repeat = max(params.repeat_penalty, _LEAST_REPEAT_PENALTY)
        stages.append(Penalties(min(params.repeat_last_n, n_ctx), repeat, 0.0, 0.0, sees_prompt=True))
    return stages


def _dry(params: SamplingParams, n_ctx: int) -> list[Stage]:
    last_n = n_ctx if params.dry_penalty_last_n < 0 else min(params.dry_penalty_last_n, n_ctx)
    if not params.dry_multiplier or not last_n:
        return []
    return [
        Dry(
            params.dry_multiplier,
            params.dry_base,
            params.dry_allowed_length,
            last_n,
            params.dry_sequence_breakers,
        )
    ]


def _temperature(params: SamplingParams) -> list[Stage]:
    t = max(params.temperature, _LEAST_TEMPERATURE)
    if not params.dynatemp_range:
        return [] if t == 1 else [Temperature(t)]
    # From `low` to `high` around their middle: llama.cpp's own lower end is 0, where it overflows.
    low = max(t - params.dynatemp_range, _LEAST_TEMPERATURE)
    high = t + params.dynatemp_range
    return [Temperature((low + high) / 2, (high - low) / 2, params.dynatemp_exponent)]


def _seed(params: SamplingParams, default: int | None) -> int:
    """A seed below llama.cpp's reserved one."""
    seed = params.seed if params.seed is not None else default
    return (
        secrets.randbelow(_SEEDS) if seed is None else (min(seed, _SEEDS - 1) + params.seed_offset) % _SEEDS
    )
