"""The request fields that chat completions, completions and `/infill` share, and what they mean to an engine.

Those that are not OpenAI's are llama-server's: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import ModelBody, NeutralValues
from kolosal.routes.common.fields import StringOrStrings, as_tuple
from kolosal.routes.common.json_schema import JsonSchema, schema_grammar
from kolosal.routes.common.sampling_fields import SamplingFields, sampling_params
from kolosal.routes.openai.grammar import UNIT, GrammarText, ResponseFormat
from kolosal.sampling import (
    MAX_LOGIT_BIASES,
    MAX_TOKENS_LIMIT,
    LogitBias,
    RepeatPenalty,
    SamplerStage,
    SamplingParams,
    TokenLimit,
    TypicalP,
)
from kolosal.schema import GenerateRequest, Grammar, GrammarKind, Prompt

_MAX_TOKEN_DIGITS = 9
"""Digits of a token's id: no vocabulary is near as large."""

_SHOWN_CHARS = 60
"""How much of a given key a message repeats."""

T = TypeVar("T")

_STAGE_ALIASES = {"typical_p": SamplerStage.TYPICAL_P, "temp": SamplerStage.TEMPERATURE}
"""Other names that llama-server takes for stages of `samplers`."""

_UNLIMITED = -1
"""llama-server's word for as many tokens as there is room for."""


class StreamOptions(RequestBody):
    """`stream_options`."""

    include_usage: bool | None = None
    """Whether the last chunk before `[DONE]` has the token counts."""


class GenerationBody(SamplingFields, ModelBody):
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
        "verbosity": ("medium",),
        "store": (False,),
        "moderation": (),
        "n_probs": (0,),
        "min_keep": (0,),
        "n_indent": (0,),
        "t_max_predict_ms": (-1, 0),
        "adaptive_target": (-1, -1.0),
        "lora": ([],),
    }

    DEFAULTS: ClassVar[Mapping[str, int]] = {}
    """`max_tokens`, where an answer does not go on for as long as there is room for it."""

    stream: bool | None = None
    """Whether the answer comes in pieces, as server-sent events."""
    stream_options: StreamOptions | None = None
    """What a stream has besides its pieces."""
    max_tokens: TokenLimit | None = None
    """Tokens to generate at most; the answer also ends where the context window does."""
    n_predict: Annotated[int, Field(ge=_UNLIMITED, le=MAX_TOKENS_LIMIT)] | None = None
    """llama-server's name for `max_tokens`, which wins; -1 means as many as there is room for."""
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
    logit_bias: Annotated[dict[str, LogitBias], Field(max_length=MAX_LOGIT_BIASES)] | None = None
    """What to add to the logits of tokens, by their ids; -100 forbids a token."""
    response_format: ResponseFormat | None = None
    """What the answer must conform to, token by token."""
    json_schema: JsonSchema | None = None
    """Short for the `response_format` of that name."""
    grammar: GrammarText | None = None
    """A GBNF grammar that the answer must conform to."""
    regex: GrammarText | None = None
    """A regular expression that the whole answer must match."""
    lark: GrammarText | None = None
    """A Lark grammar that the answer must conform to."""

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
    ) -> GenerateRequest:
        """The request for one prompt, as engines know it.

        `max_tokens` is the dialect's own limit, where the request has one; `logprobs` and `prompt_logprobs` are as engines
        know them; `choice` counts the answers to this prompt, so that each has a seed of its own."""
        self.refuse_unsupported()
        return GenerateRequest(
            prompt,
            self._sampling(max_tokens, logprobs, choice),
            grammar=self._grammar(),
            priority=self.priority or 0,
            use_cache=self.cache_prompt is not False,
            prompt_logprobs=prompt_logprobs,
        )

    def _grammar(self) -> Grammar | None:
        """The one grammar that the answer must conform to; None where the request asks for none."""
        grammars = [] if self.response_format is None else [self.response_format.to_grammar()]
        if self.json_schema is not None:
            grammars.append(schema_grammar(self.json_schema, "json_schema", UNIT))
        texts = (
            (GrammarKind.GBNF, self.grammar, "grammar"),
            (GrammarKind.REGEX, self.regex, "regex"),
            (GrammarKind.LARK, self.lark, "lark"),
        )
        grammars += [Grammar(kind, text, field) for kind, text, field in texts if text is not None]
        chosen = [grammar for grammar in grammars if grammar is not None]
        if len(chosen) > 1:
            fields = " and ".join(str(grammar.param) for grammar in chosen)
            raise InvalidRequest(
                f"An answer can follow one grammar only, but {fields} were given", param=chosen[1].param
            )
        return chosen[0] if chosen else None

    def _sampling(self, max_tokens: int | None, logprobs: int | None, choice: int) -> SamplingParams:
        limit = _first(max_tokens, self.n_predict, self.DEFAULTS.get("max_tokens"))
        samplers = [_STAGE_ALIASES.get(name, name) for name in self.samplers or ()]
        return sampling_params(
            self,
            {
                "repeat_penalty": _first(self.repeat_penalty, self.repetition_penalty),
                "typical_p": _first(self.typical_p, self.typ_p),
                "stop": as_tuple(self.stop),
                "max_tokens": None if limit == _UNLIMITED else limit,
                "logprobs": logprobs,
                "logit_bias": _biases(self.logit_bias or {}),
                "seed_offset": choice,
                "samplers": None if self.samplers is None else samplers,
            },
        )


def _first(*values: T | None) -> T | None:
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
