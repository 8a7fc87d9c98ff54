"""What an answer must conform to, as `response_format` says it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.routes.common.json_schema import ANY_OBJECT, JsonSchema, schema_grammar
from kolosal.schema import MAX_GRAMMAR_CHARS, Grammar

GrammarText: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)]

UNIT = "characters"
"""What OpenAI's dialects call the size of a schema."""


class NamedSchema(RequestBody):
    """`response_format.json_schema`. Answers always conform to the schema, as if `strict` were true."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", populate_by_name=True)

    name: Annotated[str, Field(max_length=256)] | None = None
    """Changes nothing."""
    definition: Annotated[JsonSchema, Field(alias="schema")] = ANY_OBJECT
    """The JSON schema."""
    strict: bool | None = None
    """Makes no difference: answers always conform."""


class ResponseFormat(RequestBody):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    """`json_object` is any JSON object."""
    json_schema: NamedSchema | None = None
    """Required for the type `json_schema`."""

    def to_grammar(self) -> Grammar | None:
        """The format as a grammar; None for text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return schema_grammar(ANY_OBJECT, "response_format", UNIT)
        if self.json_schema is None:
            raise InvalidRequest(
                "response_format.json_schema is required for the type json_schema",
                param="response_format.json_schema",
            )
        return schema_grammar(self.json_schema.definition, "response_format.json_schema.schema", UNIT)
