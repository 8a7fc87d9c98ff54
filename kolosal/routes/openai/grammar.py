"""What an answer must conform to: `response_format` and the fields llama.cpp's users know, as one `Grammar`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.routes.common.json_schema import ANY_OBJECT, JsonSchema, schema_grammar
from kolosal.schema import MAX_GRAMMAR_CHARS, Grammar, GrammarKind

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
        """The format as a grammar; None for text.

        Raises:
            InvalidRequest: the schema is missing or too long.
        """
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


def only_grammar(
    response_format: ResponseFormat | None,
    json_schema: JsonSchema | None,
    texts: dict[GrammarKind, str | None],
) -> Grammar | None:
    """The one grammar a request asks for; None when it asks for none. `texts` are those written out as text.

    Raises:
        InvalidRequest: it asks for two, or one is not complete.
    """
    grammars = [] if response_format is None else [response_format.to_grammar()]
    if json_schema is not None:
        grammars.append(schema_grammar(json_schema, "json_schema", UNIT))
    # `grammar` is llama.cpp's name for its own kind; the others are named after theirs
    named = {kind: "grammar" if kind is GrammarKind.GBNF else kind.value for kind in texts}
    grammars += [Grammar(kind, text, named[kind]) for kind, text in texts.items() if text is not None]
    asked = [grammar for grammar in grammars if grammar is not None]
    if len(asked) > 1:
        fields = " and ".join(str(grammar.param) for grammar in asked)
        raise InvalidRequest(
            f"An answer can follow one grammar only, but {fields} were given", param=asked[1].param
        )
    return asked[0] if asked else None
