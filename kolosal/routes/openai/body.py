"""The request fields that chat completions, completions and `/infill` share, and what they mean to an engine.

Those that are not OpenAI's are llama-server's: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

from pydantic import BeforeValidator, Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import ModelBody, NeutralValues
from kolosal.routes.common.fields import StringOrStrings, as_tuple
from kolosal.routes.common.sampling_fields import MaxTokensOrAll, SamplingFields, sampling_params
from kolosal.routes.openai.grammar import ConstraintFields
from kolosal.sampling import (
    MAX_LOGIT_BIASES,
    LogitBias,
    RepeatPenalty,
    SamplerStage,
    SamplingParams,
    TypicalP,
)
from kolosal.schema import GenerateRequest, Prompt

_MAX_TOKEN_DIGITS = 9
"""Digits of a token's id: no vocabulary is near as large."""

_SHOWN_CHARS = 60
"""How much of a given key a message repeats."""

T = TypeVar("T")

_FORBIDDEN = -100.0
"""The bias of a token that must not be: llama-server's false."""

_STAGE_ALIASES = {"typical_p": SamplerStage.TYPICAL_P, "temp": SamplerStage.TEMPERATURE}
"""Other names that llama-server takes for stages of `samplers`."""


def _biases_by_token(value: object) -> object:
    """`[[token, bias], …]` as the object that it stands for; false forbids a token. What is neither is told so by its type."""
    if not isinstance(value, list) or not all(isinstance(each, list) and len(each) == 2 for each in value):
        return value
    return {str(token): _FORBIDDEN if bias is False else bias for token, bias in value}


class StreamOptions(RequestBody):
    """`stream_options`."""

    include_usage: bool | None = None
    """Whether the last chunk before `[DONE]` has the token counts."""


class GenerationBody(SamplingFields, ConstraintFields, ModelBody):
    """Fields of all endpoints that generate. Null is as good as leaving a field out."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "functions": ([],),
        "function_call": ("none", "auto"),
        "top_logprobs": (0,),
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
        "audio": (),
        "modalities": (["text"],),
        "web_search_options": (),
        "moderation": (),
        "n_probs": (0,),
        "post_sampling_probs": (False,),
        "t_max_prompt_ms": (0, -1),
        "response_fields": ([],),
        "return_progress": (False,),
        "min_keep": (0,),
        "n_indent": (0,),
        "t_max_predict_ms": (-1, 0),
        "adaptive_target": (-1, -1.0),
        "lora": ([],),
    }

    DEFAULTS: ClassVar[Mapping[str, float]] = {}
    """What fields of sampling are where they are left out, where that is not what `SamplingParams` says."""

    stream: bool | None = None
    """Whether the answer comes in pieces, as server-sent events."""
    stream_options: StreamOptions | None = None
    """What a stream has besides its pieces."""
    timings_per_token: bool | None = None
    """Whether each piece of a stream has `timings`: llama-server's."""
    max_tokens: MaxTokensOrAll | None = None
    """Tokens to generate at most; the answer also ends where the context window does, and with -1 only there."""
    n_predict: MaxTokensOrAll | None = None
    """llama-server's name for `max_tokens`, which wins."""
    stop: StringOrStrings | None = None
    repetition_penalty: RepeatPenalty | None = None
    """Another name for `repeat_penalty`, which wins."""
    typical_p: float | None = None
    typ_p: TypicalP | None = None
    """Another name for `typical_p`, which wins."""
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    samplers: Annotated[tuple[str, ...], Field(max_length=len(SamplerStage))] | None = None
    """The stages of sampling to use, in this order; those left out do nothing."""
    logit_bias: (
        Annotated[dict[str, LogitBias], Field(max_length=MAX_LOGIT_BIASES), BeforeValidator(_biases_by_token)]
        | None
    ) = None
    """What to add to the logits of tokens, by their ids; -100 forbids a token. llama-server's array of pairs will do as well."""

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def request(
        self,
        prompt: Prompt,
        max_tokens: int | None,
        *,
        logprobs: int | None = None,
        prompt_logprobs: bool = False,
        choice: int = 0,
        default_max_tokens: int | None = None,
    ) -> GenerateRequest:
        """The request for one prompt, as engines know it.

        `max_tokens` is the dialect's own limit, where the request has one; `default_max_tokens` holds where it has none,
        and `DEFAULTS` has one, unless given; `logprobs` and `prompt_logprobs` are as engines
        know them; `choice` counts the answers to this prompt, so that each has a seed of its own."""
        self.refuse_unsupported()
        return GenerateRequest(
            prompt,
            self._sampling(max_tokens, logprobs, choice, default_max_tokens),
            grammar=self.to_grammar(),
            priority=self.priority or 0,
            use_cache=self.cache_prompt is not False,
            prompt_logprobs=prompt_logprobs,
        )

    def _sampling(
        self, max_tokens: int | None, logprobs: int | None, choice: int, default_max_tokens: int | None
    ) -> SamplingParams:
        samplers = [_STAGE_ALIASES.get(name, name) for name in self.samplers or ()]
        defaults = dict(self.DEFAULTS)
        if default_max_tokens is not None:
            defaults["max_tokens"] = default_max_tokens
        return sampling_params(
            self,
            {
                "repeat_penalty": first_given(self.repeat_penalty, self.repetition_penalty),
                "typical_p": first_given(self.typical_p, self.typ_p),
                "stop": None if self.stop is None else as_tuple(self.stop),
                "max_tokens": first_given(max_tokens, self.n_predict),
                "logprobs": logprobs,
                "logit_bias": _biases(self.logit_bias or {}),
                "seed_offset": choice,
                "samplers": None if self.samplers is None else samplers,
            },
            defaults,
        )


def first_given(*values: T | None) -> T | None:
    """The first that was given."""
    return next((value for value in values if value is not None), None)


def _biases(by_token: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    """`logit_bias` with its keys as the numbers they are."""
    for key in by_token:
        if not (key.isascii() and key.isdecimal() and len(key) <= _MAX_TOKEN_DIGITS):
            raise InvalidRequest(
                f'logit_bias must have ids of tokens as its keys, e.g. "50256", not {json.dumps(key[:_SHOWN_CHARS])}',
                param="logit_bias",
            )
    return tuple({int(key): bias for key, bias in by_token.items()}.items())
