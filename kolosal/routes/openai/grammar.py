"""What an answer must conform to: `response_format`, and what vLLM and llama-server have besides."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from kolosal.errors import InvalidRequest
from kolosal.routes.common.body import OpenBody, unsupported
from kolosal.routes.common.fields import OBJECT, STRING, by_kind
from kolosal.routes.common.json_schema import ANY_OBJECT, JsonSchema, parsed_schema, schema_grammar
from kolosal.schema import MAX_GRAMMAR_CHARS, Grammar, GrammarKind

GrammarText: TypeAlias = Annotated[str, Field(max_length=MAX_GRAMMAR_CHARS)]
"""An empty one is none."""

SchemaOrText: TypeAlias = Annotated[
    Annotated[JsonSchema, OBJECT] | Annotated[GrammarText, STRING],
    by_kind("a JSON schema, an object, or the text of one"),
]
"""A JSON schema, which some clients write as text."""

GrammarChoices: TypeAlias = Annotated[
    tuple[Annotated[str, Field(max_length=MAX_GRAMMAR_CHARS)], ...], Field(min_length=1, max_length=10_000)
]
"""Texts that an answer may be."""

UNIT = "characters"
"""What OpenAI's dialects call the size of a schema."""

_NAMED = frozenset({"name", "description", "strict"})
"""What may stand beside a schema and is none."""


class NamedSchema(OpenBody):
    """`response_format.json_schema`: a schema with a name, or a schema itself."""

    model_config = ConfigDict(
        defer_build=True, strict=True, frozen=True, extra="allow", populate_by_name=True
    )

    name: Annotated[str, Field(max_length=256)] | None = None
    """Changes nothing."""
    definition: Annotated[JsonSchema | None, Field(alias="schema")] = None
    """The JSON schema; any object unless given."""
    strict: bool | None = None
    """Refuse a schema that says what cannot be enforced; otherwise that is passed over."""

    def to_schema(self) -> tuple[JsonSchema, str]:
        """The schema, and where it stands. Without `schema` it is what else stands here."""
        if self.definition is not None:
            return self.definition, ".schema"
        return {name: value for name, value in (self.model_extra or {}).items() if name not in _NAMED}, ""


class ResponseFormat(OpenBody):
    """`response_format`."""

    model_config = ConfigDict(
        defer_build=True, strict=True, frozen=True, extra="allow", populate_by_name=True
    )

    type: Literal["text", "json_object", "json_schema"]
    """`json_object` is any JSON object."""
    json_schema: NamedSchema | None = None
    """What an answer of the type `json_schema` conforms to."""
    definition: Annotated[JsonSchema | None, Field(alias="schema")] = None
    """The JSON schema, where llama-server and Together have it."""
    strict: bool | None = None
    """As in `json_schema`."""

    def to_grammar(self) -> Grammar | None:
        """The format as a grammar; None for text."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in _NAMED:
                raise unsupported(f"response_format.{name[:60]}")
        found = self._schemas()
        if len(found) > 1:
            raise InvalidRequest(
                f"{found[0][1]} and {found[1][1]} were given, and an answer can follow one only",
                param=found[1][1],
            )
        if self.type == "text":
            if found:
                raise InvalidRequest(
                    f"{found[0][1]} must be left out for the type text", param="response_format.type"
                )
            return None
        if not found and self.type == "json_schema":
            raise InvalidRequest(
                "response_format.json_schema is required for the type json_schema",
                param="response_format.json_schema",
            )
        schema, param = found[0] if found else (ANY_OBJECT, "response_format")
        strict = self.strict or (self.json_schema is not None and self.json_schema.strict)
        return schema_grammar(schema or ANY_OBJECT, param, UNIT, strict=bool(strict))

    def _schemas(self) -> list[tuple[JsonSchema, str]]:
        """The schemas that were given, and where they stand."""
        found = [] if self.definition is None else [(self.definition, "response_format.schema")]
        if self.json_schema is not None:
            schema, where = self.json_schema.to_schema()
            found.append((schema, f"response_format.json_schema{where}"))
        return found


class StructuredOutputs(OpenBody):
    """vLLM's `structured_outputs`: one of these."""

    json_: Annotated[SchemaOrText | None, Field(alias="json")] = None
    """A JSON schema that the answer conforms to."""
    json_object: bool | None = None
    """Whether the answer is any JSON object."""
    regex: GrammarText | None = None
    """A regular expression that the whole answer matches."""
    choice: GrammarChoices | None = None
    """Texts of which the answer is one."""
    grammar: GrammarText | None = None
    """A GBNF grammar, or else a Lark grammar."""
    disable_fallback: bool | None = None
    """Changes nothing: there is one implementation."""
    disable_any_whitespace: bool | None = None
    """Changes nothing: JSON has one fixed white space."""
    disable_additional_properties: bool | None = None
    """Changes nothing: members that a schema does not name are written only where it asks for them."""

    def to_grammars(self) -> list[Grammar]:
        """What was given, as grammars."""
        for name, value in (self.model_extra or {}).items():
            if value is not None:
                raise unsupported(f"structured_outputs.{name[:60]}")
        found = guided_grammars("structured_outputs.", self.json_, self.regex, self.choice, self.grammar)
        if self.json_object:
            found.append(schema_grammar(ANY_OBJECT, "structured_outputs.json_object", UNIT))
        return found


class ConstraintFields(OpenBody):
    """The fields that say what an answer must conform to, of which a request may use one."""

    response_format: ResponseFormat | None = None
    """What the answer must conform to, token by token."""
    json_schema: SchemaOrText | None = None
    """Short for the `response_format` of that name."""
    grammar: GrammarText | None = None
    """A GBNF grammar that the answer must conform to."""
    regex: GrammarText | None = None
    """A regular expression that the whole answer must match."""
    lark: GrammarText | None = None
    """A Lark grammar that the answer must conform to."""
    structured_outputs: StructuredOutputs | None = None
    """vLLM's way to say the same."""
    guided_json: SchemaOrText | None = None
    """vLLM's older name of `structured_outputs.json`."""
    guided_regex: GrammarText | None = None
    """vLLM's older name of `structured_outputs.regex`."""
    guided_choice: GrammarChoices | None = None
    """vLLM's older name of `structured_outputs.choice`."""
    guided_grammar: GrammarText | None = None
    """vLLM's older name of `structured_outputs.grammar`."""
    guided_decoding_backend: Annotated[str, Field(max_length=64)] | None = None
    """Changes nothing: there is one implementation."""

    def to_grammar(self) -> Grammar | None:
        """The one grammar that the answer must conform to; None where the request asks for none."""
        form = None if self.response_format is None else self.response_format.to_grammar()
        grammars = [] if form is None else [form]
        if self.json_schema is not None:
            grammars.append(
                schema_grammar(parsed_schema(self.json_schema, "json_schema"), "json_schema", UNIT)
            )
        texts = (
            (GrammarKind.GBNF, self.grammar, "grammar"),
            (GrammarKind.REGEX, self.regex, "regex"),
            (GrammarKind.LARK, self.lark, "lark"),
        )
        grammars += [Grammar(kind, text, field) for kind, text, field in texts if text]
        if self.structured_outputs is not None:
            grammars += self.structured_outputs.to_grammars()
        grammars += guided_grammars(
            "guided_", self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar
        )
        if len(grammars) > 1:
            fields = " and ".join(str(grammar.param) for grammar in grammars)
            raise InvalidRequest(
                f"An answer can follow one grammar only, but {fields} were given", param=grammars[1].param
            )
        return grammars[0] if grammars else None


def guided_grammars(
    prefix: str, schema: Any, regex: str | None, choices: tuple[str, ...] | None, grammar: str | None
) -> list[Grammar]:
    """vLLM's constraints, whose fields begin with `prefix`, as grammars."""
    found = []
    if schema is not None:
        param = f"{prefix}json"
        found.append(schema_grammar(parsed_schema(schema, param), param, UNIT))
    if regex:
        found.append(Grammar(GrammarKind.REGEX, regex, f"{prefix}regex"))
    if choices is not None:
        found.append(_one_of(choices, f"{prefix}choice"))
    if grammar:
        kind = GrammarKind.GBNF if "::=" in grammar else GrammarKind.LARK
        found.append(Grammar(kind, grammar, f"{prefix}grammar"))
    return found


def _one_of(texts: tuple[str, ...], param: str) -> Grammar:
    """A grammar of some texts."""
    written = [json.dumps(text, ensure_ascii=False) for text in dict.fromkeys(texts)]
    source = f"start: {' | '.join(written)}"
    if len(source) > MAX_GRAMMAR_CHARS:
        raise InvalidRequest(
            f"{param} must have at most {MAX_GRAMMAR_CHARS} {UNIT}, but has {len(source)}", param=param
        )
    return Grammar(GrammarKind.LARK, source, param)
