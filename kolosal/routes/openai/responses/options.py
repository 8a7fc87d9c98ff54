"""Fields of a request to the Responses API that are objects of their own: `text`, `reasoning` and more."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field

from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required
from kolosal.routes.common.json_schema import ANY_OBJECT, JsonSchema, schema_grammar
from kolosal.routes.openai.grammar import UNIT
from kolosal.routes.openai.template_kwargs import ReasoningEffort
from kolosal.schema import Grammar

Verbosity: TypeAlias = Literal["low", "medium", "high"]


class TextFormat(RequestBody):
    """`text.format`. `strict` refuses a schema that says what cannot be enforced; otherwise that is passed over."""

    model_config = ConfigDict(
        defer_build=True, strict=True, frozen=True, extra="ignore", populate_by_name=True
    )

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=256)] | None = None
    definition: Annotated[JsonSchema | None, Field(alias="schema")] = None
    description: Annotated[str, Field(max_length=65_536)] | None = None
    strict: bool | None = None

    def to_grammar(self) -> Grammar | None:
        """The format as a grammar; None for text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return schema_grammar(ANY_OBJECT, "text.format", UNIT)
        required(self.name, "text.format.name")
        field = "text.format.schema"
        return schema_grammar(required(self.definition, field), field, UNIT, strict=bool(self.strict))


class TextConfig(RequestBody):
    """`text`."""

    format: TextFormat | None = None
    verbosity: Verbosity | None = None
    """Comes back, and changes nothing: no model here is told of it."""


class ReasoningConfig(RequestBody):
    """`reasoning`."""

    effort: ReasoningEffort | None = None
    """Goes to the model's chat template."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Ignored: thoughts are given whole."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The old name of `summary`."""
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    """Ignored: the model's chat template decides which earlier thoughts it sees."""
    mode: Annotated[str, Field(max_length=64)] | None = None
    """Must be standard."""


class ResponseStreamOptions(RequestBody):
    """`stream_options`."""

    include_obfuscation: bool | None = None
    """Ignored: nothing is ever added to hide the length of pieces."""


class CacheOptions(RequestBody):
    """`prompt_cache_options`. The cache of this daemon needs none."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Annotated[str, Field(max_length=16)] | None = None
    prewarm: bool | None = None
    """Must be false."""
    comparison_response_id: Annotated[str, Field(max_length=256)] | None = None
    """Must be left out."""
