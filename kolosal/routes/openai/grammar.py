"""What an answer must conform to: `response_format` and the fields llama.cpp's users know, as one `Grammar`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.schema import MAX_GRAMMAR_CHARS, Grammar, GrammarKind

JsonSchema: TypeAlias = dict[str, Any]

GrammarText: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)]

_ANY_OBJECT: JsonSchema = {"type": "object"}


class NamedSchema(RequestBody):
    """`response_format.json_schema`. Answers always conform to the schema, as if `strict` were true."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", populate_by_name=True)

    name: Annotated[str, Field(max_length=256)] | None = None
    """Changes nothing."""
    definition: Annotated[JsonSchema, Field(alias="schema")] = _ANY_OBJECT
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
            return schema_grammar(_ANY_OBJECT, "response_format")
        if self.json_schema is None:
            raise InvalidRequest(
                "response_format.json_schema is required for the type json_schema",
                param="response_format.json_schema",
            )
        return schema_grammar(self.json_schema.definition, "response_format.json_schema.schema")


def schema_grammar(schema: JsonSchema, param: str) -> Grammar:
    """A JSON schema as a grammar.

    Raises:
        InvalidRequest: it is too long, nested too deeply, or holds an integer of more than 64 bits.
    """
    source = json_text(schema, param)
    if len(source) > MAX_GRAMMAR_CHARS:
        raise InvalidRequest(
            f"{param} must have at most {MAX_GRAMMAR_CHARS} characters, but has {len(source)}", param=param
        )
    return Grammar(GrammarKind.JSON_SCHEMA, source, param)


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
        grammars.append(schema_grammar(json_schema, "json_schema"))
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
