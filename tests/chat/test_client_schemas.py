"""Schemas as clients write them: none is refused as a tool's, and what is enforced is valid."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, meta
from llguidance import LLMatcher

from kolosal.chat.formats import ToolFormat
from kolosal.chat.grammar import TurnFacts, TurnGrammar
from kolosal.chat.json_schema.enforceable import Enforceable, enforceable, enforceable_object
from kolosal.chat.schemas import JSON_SPACING
from kolosal.schema import Tool, ToolMode, ToolUse
from tests.chat.client_schemas import CLIENT_SCHEMAS, closed, one, string
from tests.chat.test_hostile_schemas import SCHEMAS
from tests.chat.vocabulary import Vocabulary

TOKENIZER = Vocabulary().tokenizer()
FORMATS = (ToolFormat.HERMES, ToolFormat.GEMMA, ToolFormat.QWEN_CODER)
"""Arguments as JSON, in Gemma's notation and in tags: the other formats write them in one of these ways."""

NO_SCHEMAS = frozenset(
    {"mcp-null-keywords", "mcp-null-members", "mcp-any", "mcp-python-types", "mcp-gemini-types", "mcp-misplaced-defs",
     "zod3-openapi", "openapi-draft4", "zod3-tuple", "zod3-map", "ts-tuple", "openapi-code-points", "openapi-nullable-enum",
     "openapi-nullable-ref", "openapi-nullable-all-of", "mcp-required-boolean", "mcp-additional-string", "pydantic-constr", "ts-definitions"}
)  # fmt: skip
"""Those that a validator of draft 2020-12 reads otherwise, or cannot read."""


def matcher(schema: dict[str, Any]) -> LLMatcher:
    source = json.dumps({**schema, "x-guidance": JSON_SPACING})
    return LLMatcher(TOKENIZER, LLMatcher.grammar_from_json_schema(source), log_level=0)


def written(schema: dict[str, Any], seed: int) -> str | None:
    """Random text that a schema's grammar allows, with a liking for what closes; None where it does not end."""
    choice, grammar, text = random.Random(seed), matcher(schema), bytearray()  # noqa: S311 - no secret
    for _ in range(400):
        if grammar.is_accepting() and (grammar.is_stopped() or choice.random() < 0.5):
            return text.decode()
        mask = grammar.compute_bitmask()
        allowed = [byte for byte in range(256) if mask[byte // 8] >> byte % 8 & 1]
        liked = [byte for byte in allowed if byte in b'"}]'] if choice.random() < 0.5 else []
        plain = [byte for byte in allowed if byte in b'"},:{[0123456789abcTZ- ']
        token = choice.choice(liked or plain or allowed)
        assert grammar.consume_token(token)
        text.append(token)
    return None


@pytest.mark.parametrize("tool_format", FORMATS)
def test_no_tool_is_refused(tool_format: ToolFormat) -> None:
    refused = {}
    for name, schema in CLIENT_SCHEMAS.items():
        use = ToolUse((Tool("f", "", schema),), ToolMode.AUTO)
        source = TurnGrammar(use, None, TurnFacts(tool_format, None), lambda _: None, (1,)).source()
        refused[name] = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(source), log_level=0).get_error()

    assert {name: error for name, error in refused.items() if error} == {}


@pytest.mark.parametrize("translated", [enforceable, enforceable_object])
def test_what_is_written_is_valid(translated: Any) -> None:
    """Against what is enforced; and against what was given, where all of it is."""
    wrong = []
    for name, schema in CLIENT_SCHEMAS.items():
        found: Enforceable = translated(schema)
        validators = [Draft202012Validator(found.schema)]
        if not found.unenforced and name not in NO_SCHEMAS:
            validators.append(Draft202012Validator(schema))
        texts = (written(found.schema, seed) for seed in range(3))
        values = [json.loads(text) for text in texts if text is not None]
        wrong += [(name, value) for value in values if not all(each.is_valid(value) for each in validators)]
    assert wrong == []


@given(SCHEMAS)
def test_anything_becomes_a_schema_that_can_be_read(schema: dict[str, Any]) -> None:
    for found in (enforceable(schema), enforceable_object(schema)):
        meta.validate(found.schema)
        assert enforceable(found.schema).unenforced == ()


# --- what becomes of what ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"enum": ["a"], "nullable": True}, {"enum": ["a", None]}),
        ({"type": "any", "title": "A"}, {}),
        ({"type": "string", "maxLength": 10.0, "minLength": None}, {"type": "string", "maxLength": 10}),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 0}),
        ({"type": "integer", "maximum": 2**63 - 1}, {"type": "integer", "maximum": 9 * 10**18}),
        ({"type": "number", "minimum": -1.7e308, "maximum": 1.7e308}, {"type": "number"}),
        ({"type": "array", "items": [{"type": "null"}], "additionalItems": False},
         {"type": "array", "prefixItems": [{"type": "null"}], "items": False}),
        ({"minLength": 2}, {"type": "string", "minLength": 2}),
        ({"properties": {"a": {"type": "integer", "required": True}}},
         {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}),
        ({"type": "object", "propertyNames": {"enum": ["x"]}, "additionalProperties": {"type": "null"}},
         {"type": "object", "properties": {"x": {"type": "null"}}, "additionalProperties": False}),
        ({"type": ["string", "null"], "const": None}, {"type": ["string", "null"]}),
        ({"const": None}, {"const": None}),
        ({"allOf": [{"type": "string"}], "description": "A"}, {"type": "string"}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
    ],
)  # fmt: skip
def test_keyword_is_read(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = enforceable(given)

    assert (found.schema, found.unenforced) == (expected, ())


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        (one({"not": {"type": "string"}}), "/properties/a/not"),
        (one({"type": "array", "uniqueItems": True}), "/properties/a/uniqueItems"),
        (one(string(format="cuid")), "/properties/a/format"),
        (one(string(pattern=r"^(?!x)")), "/properties/a/pattern"),
        (one({"if": {}, "then": {"type": "string"}, "anyOf": []}), "/properties/a/anyOf"),
        (one({"if": {"const": 1}, "then": False}), "/properties/a/if"),
        (one({"$ref": "#/$defs/no"}), "/properties/a/$ref"),
        (one({"enum": []}), "/properties/a/enum"),
        (one({"type": "strin"}), "/properties/a/type"),
        (one({"type": "number", "minimum": 3, "maximum": 2}), "/properties/a/minimum"),
        (one({"oneOf": [{"type": "string"}, {"minLength": 1}]}), "/properties/a/oneOf"),
        (one(closed(**{"b/c": {"dependentRequired": {"x": ["y"]}}})), "/properties/a/properties/b~1c/dependentRequired"),
        ({**one({"$ref": "#/$defs/T"}), "$defs": {"T": closed(x={"contains": {}, "minItems": "1"})}}, "/$defs/T/properties/x/minItems"),
        ({"minProperties": 1, "properties": {"a": {}, "b": {}}}, "/minProperties"),
    ],
)  # fmt: skip
def test_place_that_is_not_enforced_is_told(schema: dict[str, Any], pointer: str) -> None:
    assert [each.pointer for each in enforceable(schema).unenforced] == [pointer]


def test_objects_are_closed_where_nothing_else_names_their_members() -> None:
    """What one part of a schema says of members must not shut those of another part out."""
    definitions = {
        "P": {"type": "object", "properties": {"a": {}}},
        "Q": {"allOf": [{"$ref": "#/$defs/P"}, one({})]},
    }
    schema = enforceable(
        {"properties": {"p": {"$ref": "#/$defs/P"}, "q": {"$ref": "#/$defs/Q"}}, "$defs": definitions}
    ).schema

    assert schema["additionalProperties"] is False
    assert [each.get("additionalProperties") for each in schema["$defs"].values()] == [None, None]


@pytest.mark.parametrize(("length", "pointers"), [(300, []), (3000, ["/$ref"])])
def test_chain_of_references_is_its_end_unless_it_is_long(length: int, pointers: list[str]) -> None:
    """Case `ref-chain`."""
    chain = {f"a{index}": {"$ref": f"#/$defs/a{index + 1}"} for index in range(length)}
    found = enforceable({"$ref": "#/$defs/a0", "$defs": {**chain, f"a{length}": {"type": "null"}}})

    assert [each.pointer for each in found.unenforced] == pointers
    assert found.schema == ({} if pointers else {"type": "null"})


@given(st.recursive(st.sampled_from(list(CLIENT_SCHEMAS.values())), lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each})))  # fmt: skip
def test_schemas_within_another_one_can_be_read(schema: dict[str, Any]) -> None:
    assert not matcher(enforceable(one(schema)).schema).is_error()
