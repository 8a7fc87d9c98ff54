"""The sampler chain of a request: which samplers of llama.cpp, in which order. Pure; `llamacpp/sampler.py` builds it.

The stages come in the order the request gives, which is llama.cpp's own unless it says otherwise, then the draw. Values that
llama.cpp would overflow on are kept in a range where they mean the same. `SamplerStage` names the source of each.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple, assert_never

from kolosal.sampling import DEFAULT_SEED, SamplerStage, SamplingParams

_LEAST_TEMPERATURE = 0.001
"""Logits divided by less overflow, and then the draw goes wrong; at this one nothing but the most probable token is drawn."""

_LEAST_REPEAT_PENALTY = 0.001
"""The same for logits divided by the repetition penalty."""

_LEAST_RELATIVE_P = 1e-30
"""Tokens less probable than this, compared with the most probable one, are dropped before the typical ones are looked for:
llama.cpp takes the logarithm of their probability, which may be 0, and then finds none typical."""

_MIROSTAT_CANDIDATES = 100
"""The most probable tokens that mirostat 1 estimates the text's surprise from: llama.cpp's own number."""

_SEEDS = 2**32 - 1
"""Seeds are below this: llama.cpp's 0xFFFFFFFF means "random"."""

_MIN_KEEP = 1
"""Tokens that every stage leaves."""


class ChainSampler(NamedTuple):
    """One sampler of a chain."""

    name: str
    """Of the function of llama.h that makes it, after `llama_sampler_init_`."""
    arguments: tuple[Any, ...] = ()
    """Of that function; for `dry` without the vocabulary, and the sequence breakers as a tuple."""
    n_prompt: int = 0
    """How many of the prompt's last tokens it counts as if they had been sampled."""


GREEDY = ChainSampler("greedy")
"""Picks the most probable token."""


def sampler_chain(
    params: SamplingParams, *, n_ctx: int, n_vocab: int, default_seed: int | None
) -> list[ChainSampler]:
    """The chain for a request; stages that would do nothing are left out.

    Temperature 0 is the most probable token after penalties, whatever else is asked for. Mirostat takes the place of all
    stages but penalties and temperature.
    """
    seed = _seed(params, default_seed)
    only: tuple[SamplerStage, ...] = params.samplers
    last = ChainSampler("dist", (seed,))
    if params.temperature == 0:
        only = (SamplerStage.PENALTIES, SamplerStage.DRY)
        last = GREEDY
    elif params.mirostat:
        only = (SamplerStage.PENALTIES, SamplerStage.DRY, SamplerStage.TEMPERATURE)
        target = (seed, params.mirostat_tau, params.mirostat_eta)
        last = ChainSampler("mirostat_v2", target)
        if params.mirostat == 1:
            last = ChainSampler("mirostat", (n_vocab, *target, _MIROSTAT_CANDIDATES))
    chain: list[ChainSampler] = []
    for stage in params.samplers:
        if stage in only:
            chain += _stage(stage, params, n_ctx, n_vocab, seed)
    return [*chain, last]


def _stage(
    stage: SamplerStage, params: SamplingParams, n_ctx: int, n_vocab: int, seed: int
) -> list[ChainSampler]:
    match stage:
        case SamplerStage.PENALTIES:
            return _penalties(params, n_ctx, n_vocab)
        case SamplerStage.DRY:
            return _dry(params, n_ctx)
        case SamplerStage.TOP_N_SIGMA:
            return [ChainSampler("top_n_sigma", (params.top_n_sigma,))] if params.top_n_sigma > 0 else []
        case SamplerStage.TOP_K:
            return [ChainSampler("top_k", (params.top_k,))] if params.top_k > 0 else []
        case SamplerStage.TYPICAL_P:
            possible = ChainSampler("min_p", (_LEAST_RELATIVE_P, _MIN_KEEP))
            typical = ChainSampler("typical", (params.typical_p, _MIN_KEEP))
            return [possible, typical] if 0 < params.typical_p < 1 else []
        case SamplerStage.TOP_P:
            return [ChainSampler("top_p", (params.top_p, _MIN_KEEP))] if 0 < params.top_p < 1 else []
        case SamplerStage.MIN_P:
            return [ChainSampler("min_p", (params.min_p, _MIN_KEEP))] if params.min_p else []
        case SamplerStage.XTC:
            removes = params.xtc_probability > 0 and params.xtc_threshold <= 0.5
            arguments = (params.xtc_probability, params.xtc_threshold, _MIN_KEEP, seed)
            return [ChainSampler("xtc", arguments)] if removes else []
        case SamplerStage.TEMPERATURE:
            return _temperature(params)
        case _:
            assert_never(stage)


def _penalties(params: SamplingParams, n_ctx: int, n_vocab: int) -> list[ChainSampler]:
    """The OpenAI penalties look at all text generated so far, the repetition penalty at the last `repeat_last_n` tokens
    with the prompt's. `n_ctx` stands for "all": llama.cpp keeps that many."""
    samplers: list[ChainSampler] = []
    if params.frequency_penalty or params.presence_penalty:
        arguments = (n_vocab, n_ctx, 1.0, params.frequency_penalty, params.presence_penalty)
        samplers.append(ChainSampler("penalties", arguments))
    last_n = _look_back(params.repeat_last_n, n_ctx)
    if params.repeat_penalty != 1.0 and last_n:
        repeat = max(params.repeat_penalty, _LEAST_REPEAT_PENALTY)
        samplers.append(ChainSampler("penalties", (n_vocab, last_n, repeat, 0.0, 0.0), n_prompt=last_n))
    return samplers


def _dry(params: SamplingParams, n_ctx: int) -> list[ChainSampler]:
    last_n = _look_back(params.dry_penalty_last_n, n_ctx)
    if not params.dry_multiplier or not last_n:
        return []
    size = (params.dry_multiplier, params.dry_base, params.dry_allowed_length)
    return [ChainSampler("dry", (*size, last_n, params.dry_sequence_breakers), n_prompt=last_n)]


def _look_back(n_tokens: int, n_ctx: int) -> int:
    return n_ctx if n_tokens < 0 else min(n_tokens, n_ctx)


def _temperature(params: SamplingParams) -> list[ChainSampler]:
    t = max(params.temperature, _LEAST_TEMPERATURE)
    if not params.dynatemp_range:
        return [] if t == 1 else [ChainSampler("temp_ext", (t, 0.0, 1.0))]
    # From `low` to `high` around their middle: llama.cpp's own lower end is 0, where it overflows.
    low = max(t - params.dynatemp_range, _LEAST_TEMPERATURE)
    high = t + params.dynatemp_range
    return [ChainSampler("temp_ext", ((low + high) / 2, (high - low) / 2, params.dynatemp_exponent))]


def _seed(params: SamplingParams, default: int | None) -> int:
    """A seed below llama.cpp's reserved one. Its own are of 32 bits."""
    for seed in (params.seed, default):
        if seed is not None and seed != DEFAULT_SEED:
            return (min(seed % 2**32, _SEEDS - 1) + params.seed_offset) % _SEEDS
    return secrets.randbelow(_SEEDS)
