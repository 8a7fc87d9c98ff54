"""JSON schemas out of requests: bounded, and as the grammar that an answer must conform to."""

from __future__ import annotations

from typing import Any, TypeAlias

from kolosal.errors import InvalidRequest
from kolosal.http.nesting import json_text
from kolosal.schema import MAX_GRAMMAR_CHARS, Grammar, GrammarKind

JsonSchema: TypeAlias = dict[str, Any]

ANY_OBJECT: JsonSchema = {"type": "object"}
"""What an answer must conform to where a dialect says `json` and no more."""


def bounded_json(value: object, param: str, max_chars: int, unit: str = "characters as JSON") -> str:
    """A value of a request as JSON text; `param` is where it stands, `unit` how the dialect calls what is bounded.

    Raises:
        InvalidRequest: it is too long, nested too deeply, or holds an integer of more than 64 bits.
    """
    text = json_text(value, param)
    if len(text) > max_chars:
        raise InvalidRequest(
            f"{param} must have at most {max_chars} {unit}, but has {len(text)}", param=param
        )
    return text


def schema_grammar(schema: JsonSchema, param: str, unit: str = "characters as JSON") -> Grammar:
    """A JSON schema as a grammar; `param` and `unit` as for `bounded_json`."""
    return Grammar(GrammarKind.JSON_SCHEMA, bounded_json(schema, param, MAX_GRAMMAR_CHARS, unit), param)
