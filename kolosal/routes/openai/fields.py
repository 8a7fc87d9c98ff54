"""The request fields that chat completions and completions share, and what they mean to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter

from kolosal.errors import InvalidRequest
from kolosal.http.decode import UNION_ERROR, RequestBody, decode_fields
from kolosal.routes.openai.grammar import GrammarText, JsonSchema, ResponseFormat, only_grammar
from kolosal.routes.openai.unsupported import REQUEST_FIELDS, refuse_unsupported
from kolosal.schema import (
    MAX_PRIORITY,
    MAX_TOKENS_LIMIT,
    GenerateRequest,
    GrammarKind,
    Prompt,
    SamplingParams,
)

MAX_MODEL_CHARS = 256
"""As long as the id of an engine can be."""

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


class StreamOptions(RequestBody):
    """`stream_options`."""

    include_usage: bool | None = None


class GenerationBody(RequestBody):
    """Fields of both endpoints. Null is as good as leaving a field out. Other fields are kept, to be looked through."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    DEFAULT_MAX_TOKENS: ClassVar[int]

    model: Annotated[str, Field(max_length=MAX_MODEL_CHARS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT)] | None = None
    stop: TextOrTexts | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    json_schema: JsonSchema | None = None
    grammar: GrammarText | None = None
    regex: GrammarText | None = None
    lark: GrammarText | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    cache_prompt: bool | None = None

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

    def request(self, prompt: Prompt, max_tokens: int | None) -> GenerateRequest:
        """The request for one prompt, as engines know it.

        Raises:
            InvalidRequest: a value is out of range.
            UnsupportedFeature: the request asks for something that this daemon does not have.
        """
        refuse_unsupported(self.model_extra or {}, REQUEST_FIELDS)
        written = {GrammarKind.GBNF: self.grammar, GrammarKind.REGEX: self.regex, GrammarKind.LARK: self.lark}
        return GenerateRequest(
            prompt,
            self._sampling(max_tokens),
            grammar=only_grammar(self.response_format, self.json_schema, written),
            priority=self.priority or 0,
            use_cache=self.cache_prompt is not False,
        )

    def _sampling(self, max_tokens: int | None) -> SamplingParams:
        fields: dict[str, Any] = {name: getattr(self, name) for name in _SAMPLING_FIELDS}
        fields["stop"] = (self.stop,) if isinstance(self.stop, str) else self.stop
        fields["max_tokens"] = max_tokens or self.DEFAULT_MAX_TOKENS
        return decode_fields(_sampling_params, _given(fields))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
