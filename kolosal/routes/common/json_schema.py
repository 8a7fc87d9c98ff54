"""JSON schemas out of requests: bounded, and as the grammar that an answer must conform to."""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

from kolosal.chat.json_schema.enforceable import Enforceable, enforceable
from kolosal.chat.schemas import refuse_unenforced
from kolosal.errors import InvalidRequest
from kolosal.http.nesting import json_text
from kolosal.observe.context import note_unenforced
from kolosal.schema import MAX_GRAMMAR_CHARS, Grammar, GrammarKind

_MAX_PLACES, _MAX_PLACE_CHARS = 16, 300
"""Of one schema."""

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


def parsed_schema(schema: JsonSchema | str, param: str) -> JsonSchema:
    """A JSON schema that a client may have written as text.

    Raises:
        InvalidRequest: the text is no JSON object.
    """
    if not isinstance(schema, str):
        return schema
    try:
        found = orjson.loads(schema)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{param} must be a JSON schema, an object, or the text of one", param=param)
    return found


def schema_grammar(
    schema: JsonSchema, param: str, unit: str = "characters as JSON", *, strict: bool = False
) -> Grammar:
    """What can be enforced of a JSON schema as a grammar; `param` and `unit` as for `bounded_json`.

    Raises:
        InvalidRequest: it is too large, or strict, and says what cannot be enforced.
    """
    bounded_json(schema, param, MAX_GRAMMAR_CHARS, unit)
    found = enforceable(schema)
    if strict:
        refuse_unenforced(found, param)
    source = bounded_json(found.schema, param, MAX_GRAMMAR_CHARS, unit)
    note_places(found, param)
    return Grammar(GrammarKind.JSON_SCHEMA, source, param)


def note_places(found: Enforceable, param: str) -> None:
    """Have the answer tell where the schema of the field `param` says what is not enforced: the first places."""
    for each in found.unenforced[:_MAX_PLACES]:
        note_unenforced(f"{param}#{each.pointer}"[:_MAX_PLACE_CHARS])
