"""SamplingParams: how tokens are chosen and when to stop, with the bounds of every number.

Bounds are enforced here, so nothing out of range reaches native code. The names are llama.cpp's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import Field

MAX_TOKENS_LIMIT = 1_000_000
"""Upper bound of every count of tokens: the largest context window that can be configured."""

MAX_INT = 2**63 - 1
"""The largest number that clients' native integers hold."""

DEFAULT_SEED = -1
"""The seed that is none: llama-server's."""

MAX_STOP_STRINGS = 64
"""Stop strings one request may give; each is compared with every piece of text."""

MAX_STOP_CHARS = 1024
"""Characters of one stop string; bounds the text that is held back."""

MAX_LOGPROBS = 20
"""Most probable tokens to report for each token: the OpenAI API's bound."""

MAX_CHOICES = 128
"""Generations one request may ask for: its prompts times the choices of each."""

MAX_TOKEN_ID = 2**31 - 1
"""The largest id of a token that llama.cpp could hold. A model's own bound is its vocabulary, which its worker knows."""

MAX_TOP_K = 1_000_000
"""Larger than any vocabulary."""

MAX_LOGIT_BIASES = 1024
"""Tokens whose logit one request may change."""

MAX_DRY_BREAKERS = 32
"""Sequence breakers of the DRY sampler."""


class SamplerStage(StrEnum):
    """The stages of llama.cpp's chain whose order a request may give."""

    PENALTIES = "penalties"
    """Of repetition (CTRL, https://arxiv.org/abs/1909.05858), frequency and presence (the OpenAI API's)."""
    DRY = "dry"
    """"Don't repeat yourself": https://github.com/oobabooga/text-generation-webui/pull/5677"""
    TOP_N_SIGMA = "top_n_sigma"
    """https://arxiv.org/abs/2411.07641"""
    TOP_K = "top_k"
    """https://arxiv.org/abs/1805.04833"""
    TYPICAL_P = "typ_p"
    """Locally typical sampling, https://arxiv.org/abs/2202.00666"""
    TOP_P = "top_p"
    """Nucleus sampling, https://arxiv.org/abs/1904.09751"""
    MIN_P = "min_p"
    """https://arxiv.org/abs/2407.01082"""
    XTC = "xtc"
    """"Exclude top choices": https://github.com/oobabooga/text-generation-webui/pull/6335"""
    TEMPERATURE = "temperature"
    """With a range it is dynamic: https://github.com/ggml-org/llama.cpp/pull/4972"""


DEFAULT_ORDER = tuple(SamplerStage)
"""llama.cpp's own order."""


# Types of numbers that protocols take too, under these names and others.
Temperature: TypeAlias = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]
TopP: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
TopK: TypeAlias = Annotated[int, Field(ge=-1, le=MAX_TOP_K)]
RepeatPenalty: TypeAlias = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
TypicalP: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
LogitBias: TypeAlias = Annotated[float, Field(ge=-100, le=100)]
Seed: TypeAlias = Annotated[int, Field(ge=-MAX_INT - 1, le=MAX_INT)]
TokenCount: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)]
TokenLimit: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT)]
ReasoningBudget: TypeAlias = Annotated[int, Field(ge=-1, le=MAX_TOKENS_LIMIT)]
LookBack: TypeAlias = Annotated[int, Field(ge=-1, le=MAX_TOKENS_LIMIT)]
TopLogprobs: TypeAlias = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]
Choices: TypeAlias = Annotated[int, Field(ge=1, le=MAX_CHOICES)]
StopString: TypeAlias = Annotated[str, Field(max_length=MAX_STOP_CHARS)]
GivenNames: TypeAlias = Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)]
StopStrings: TypeAlias = Annotated[tuple[StopString, ...], Field(max_length=MAX_STOP_STRINGS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    The defaults of `top_k`, `min_p`, `repeat_last_n` and of everything below them that changes nothing unless asked for
    are llama.cpp's own; the others are the OpenAI API's.
    """

    temperature: Temperature = 1.0
    """0 is greedy: the most probable token."""
    top_p: TopP = 1.0
    """Keep the most probable tokens whose probabilities add up to this; 0 and 1 are off."""
    top_k: TopK = 40
    """Keep this many of the most probable tokens; 0 and -1 are off."""
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    """Keep tokens at least this probable, as a share of the most probable one's; 0 is off."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    """Subtracted once from the logit of every token that was generated."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    """Subtracted from a token's logit for each time it was generated."""
    repeat_penalty: RepeatPenalty = 1.0
    """Divides the logits of tokens among the last `repeat_last_n`, the prompt's included; negative ones are multiplied. 1 is off."""
    repeat_last_n: LookBack = 64
    """How far back `repeat_penalty` looks, in tokens; -1 is the whole context, 0 is off."""
    typical_p: TypicalP = 1.0
    """Keep the tokens whose information is nearest to the entropy, until their probabilities add up to this; 0 and 1 are off."""
    top_n_sigma: Annotated[float, Field(ge=-1, le=100, allow_inf_nan=False)] = -1.0
    """Keep tokens within this many standard deviations of the largest logit; -1 and 0 are off."""
    xtc_probability: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Probability, at each token, that all but the least probable of those above `xtc_threshold` are removed; 0 is off."""
    xtc_threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """Two tokens must be at least this probable; above 0.5 nothing is removed."""
    dynatemp_range: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.0
    """The temperature moves this far up and down with the entropy; 0 is off."""
    dynatemp_exponent: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    """The power of the normalised entropy that the temperature follows."""
    dry_multiplier: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    """The penalty of a token is this times `dry_base` to the power of by how much a repetition would be too long; 0 is off."""
    dry_base: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 1.75
    """See `dry_multiplier`."""
    dry_allowed_length: TokenCount = 2
    """Repetitions up to this many tokens are free."""
    dry_penalty_last_n: LookBack = -1
    """How far back repetitions are looked for, in tokens; -1 is the whole context, 0 is off."""
    dry_sequence_breakers: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=MAX_DRY_BREAKERS)
    ] = ("\n", ":", '"', "*")
    """Texts at which a repetition ends."""
    mirostat: Annotated[int, Field(ge=0, le=2)] = 0
    """Version 1 or 2 (https://arxiv.org/abs/2007.14966) takes the place of all stages but penalties and temperature; 0 is off."""
    mirostat_tau: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 5.0
    """The surprise to keep to, in bits."""
    mirostat_eta: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """How fast the surprise is corrected."""
    samplers: Annotated[tuple[SamplerStage, ...], Field(max_length=len(SamplerStage))] = DEFAULT_ORDER
    """The stages to use, in this order; those left out do nothing."""
    logit_bias: Annotated[
        tuple[tuple[TokenId, LogitBias], ...],
        Field(max_length=MAX_LOGIT_BIASES),
    ] = ()
    """(token, what is added to its logit); -100 forbids it, whatever its logit."""
    seed: Seed | None = None
    """The same seed gives the same text for the same request; None and -1 take the engine's, else a fresh one. It is taken modulo
    2^32."""
    seed_offset: Annotated[int, Field(ge=0, le=MAX_CHOICES)] = 0
    """Added to the seed, also to an engine's own: tells the choices of one request apart."""
    max_tokens: TokenCount | None = None
    """Tokens to generate at most; None means to the end of the context window."""
    stop: StopStrings = ()
    """The text ends before the first of these; it is never part of the output. An empty one is none."""
    reasoning_budget: ReasoningBudget | None = None
    """Tokens that the model may think before it answers: at the bound its thought is closed. 0 lets it not think, -1 sets no bound; where
    nothing is given the effort that was asked for says, if any."""
    ignore_eos: bool = False
    """Go on after the model's end-of-turn token, until `max_tokens`."""
    logprobs: TopLogprobs | None = None
    """How many of the most probable tokens to report beside each chosen one; None reports nothing."""
    given: GivenNames | None = field(default=None, compare=False, repr=False)
    """Names of the fields that the client gave: a model's own defaults take the place of the others. None: they have, or there are
    none to look at."""


NOT_OF_A_MODEL = frozenset({"given", "logit_bias", "logprobs", "seed_offset"})
"""Fields that belong to one request: a model has no defaults of them."""
