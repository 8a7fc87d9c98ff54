"""The request fields that chat completions and completions share, and what they mean to an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter

from kolosal.errors import InvalidRequest
from kolosal.http.decode import UNION_ERROR, RequestBody, decode_fields
from kolosal.routes.openai.grammar import GrammarText, JsonSchema, ResponseFormat, only_grammar
from kolosal.routes.openai.unsupported import REQUEST_FIELDS, refuse_unsupported
from kolosal.sampling import MAX_LOGIT_BIASES, MAX_TOKENS_LIMIT, SamplerStage, SamplingParams
from kolosal.schema import MAX_PRIORITY, GenerateRequest, GrammarKind, Prompt

MAX_MODEL_CHARS = 256
"""As long as the id of an engine can be."""

_MAX_TOKEN_DIGITS = 9
"""Digits of a token's id: no vocabulary is near as large."""

_SHOWN_CHARS = 60
"""How much of a given key a message repeats."""

T = TypeVar("T")

_sampling_params: TypeAdapter[SamplingParams] = TypeAdapter(SamplingParams)

_SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
    "repeat_last_n",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "dynatemp_range",
    "dynatemp_exponent",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "seed",
    "ignore_eos",
)
"""Fields that mean the same here and in `SamplingParams`, where the bounds are."""


def text_or_list(value: object) -> str | None:
    """Discriminator of a field that is a string or an array. The tags never show in an error."""
    if isinstance(value, str):
        return "<text>"
    return "<list>" if isinstance(value, list | tuple) else None


TextOrTexts: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[tuple[str, ...], Tag("<list>")],
    Discriminator(
        text_or_list,
        custom_error_type=UNION_ERROR,
        custom_error_message="a string or an array of strings",
    ),
]


_STAGE_ALIASES = {"typical_p": SamplerStage.TYPICAL_P, "temp": SamplerStage.TEMPERATURE}
"""Other names that llama-server takes for stages of `samplers`."""

UNLIMITED = -1
"""llama-server's word for as many tokens as there is room for."""

LogitBias: TypeAlias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_LOGIT_BIASES)
]


class StreamOptions(RequestBody):
    """`stream_options`."""

    include_usage: bool | None = None
    """Whether the last chunk before `[DONE]` has the token counts."""


class GenerationBody(RequestBody):
    """Fields of both endpoints. Null is as good as leaving a field out. Other fields are kept, to be looked through."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    DEFAULT_MAX_TOKENS: ClassVar[int]
    """Tokens to generate where the request does not say; `UNLIMITED` means as many as there is room for."""

    model: Annotated[str, Field(max_length=MAX_MODEL_CHARS)] | None = None
    """An `engine_id`; may be left out only where a default engine is configured."""
    stream: bool | None = None
    """Whether the answer comes in pieces, as server-sent events."""
    stream_options: StreamOptions | None = None
    """What a stream has besides its pieces."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT)] | None = None
    """Tokens to generate at most; the answer also ends where the context window does."""
    n_predict: Annotated[int, Field(ge=UNLIMITED, le=MAX_TOKENS_LIMIT)] | None = None
    """llama-server's name for `max_tokens`, which wins; -1 means as many as there is room for."""
    stop: TextOrTexts | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Another name for `repeat_penalty`, which wins."""
    repeat_last_n: int | None = None
    typical_p: float | None = None
    typ_p: Annotated[float, Field(gt=0, le=1)] | None = None
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
    logit_bias: LogitBias | None = None
    """What to add to the logits of tokens, by their ids; -100 forbids a token."""
    seed: int | None = None
    ignore_eos: bool | None = None
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
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    """Higher is started first and preempted last."""
    cache_prompt: bool | None = None
    """False takes no KV cells of other requests and leaves none for them."""

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def checked_model(self, default_engine: str | None) -> str | None:
        """The model's name, which may be left out only where a default engine is configured.

        Raises:
            InvalidRequest: it was left out.
        """
        if not self.model and default_engine is None:
            raise InvalidRequest(self.MISSING or "Missing required field: model", param="model")
        return self.model or None

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
        know them; `choice` counts the answers to this prompt, so that each has a seed of its own.

        Raises:
            InvalidRequest: a value is out of range.
            UnsupportedFeature: the request asks for something that this daemon does not have.
        """
        refuse_unsupported(self.model_extra or {}, REQUEST_FIELDS)
        written = {GrammarKind.GBNF: self.grammar, GrammarKind.REGEX: self.regex, GrammarKind.LARK: self.lark}
        return GenerateRequest(
            prompt,
            self._sampling(max_tokens, logprobs, choice),
            grammar=only_grammar(self.response_format, self.json_schema, written),
            priority=self.priority or 0,
            use_cache=self.cache_prompt is not False,
            prompt_logprobs=prompt_logprobs,
        )

    def _sampling(self, max_tokens: int | None, logprobs: int | None, choice: int) -> SamplingParams:
        fields: dict[str, Any] = {name: getattr(self, name) for name in _SAMPLING_FIELDS}
        fields["repeat_penalty"] = _first(self.repeat_penalty, self.repetition_penalty)
        fields["typical_p"] = _first(self.typical_p, self.typ_p)
        fields["stop"] = (self.stop,) if isinstance(self.stop, str) else self.stop
        limit = _first(max_tokens, self.n_predict, self.DEFAULT_MAX_TOKENS)
        fields["max_tokens"] = None if limit == UNLIMITED else limit
        fields["logprobs"] = logprobs
        fields["logit_bias"] = _biases(self.logit_bias)
        fields["seed_offset"] = choice
        if self.samplers is not None:
            fields["samplers"] = [_STAGE_ALIASES.get(name, name) for name in self.samplers]
        return decode_fields(_sampling_params, _given(fields))


def _first(*values: T | None) -> T | None:
    """The first that was given."""
    return next((value for value in values if value is not None), None)


def _biases(given: Mapping[str, float] | None) -> tuple[tuple[int, float], ...] | None:
    """`logit_bias` with its keys as the numbers they are."""
    if given is None:
        return None
    for key in given:
        if not (key.isascii() and key.isdecimal() and len(key) <= _MAX_TOKEN_DIGITS):
            raise InvalidRequest(
                f'logit_bias must have ids of tokens as its keys, e.g. "50256", not {json.dumps(key[:_SHOWN_CHARS])}',
                param="logit_bias",
            )
    return tuple({int(key): bias for key, bias in given.items()}.items())


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
