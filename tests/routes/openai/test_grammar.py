"""`response_format` and its relatives: which grammar reaches the engine, and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kolosal.errors import ClientError
from kolosal.http.decode import decode_body
from kolosal.routes.openai.chat import ChatCompletionBody
from kolosal.routes.openai.completions import CompletionBody
from kolosal.schema import GenerateRequest, GrammarKind

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
CONST = {"const": "42"}


def chat(**fields: Any) -> GenerateRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    return decode_body(orjson.dumps(body), ChatCompletionBody).to_requests()[0]


@pytest.mark.parametrize(
    ("fields", "kind", "source", "param"),
    [
        (
            {"response_format": {"type": "json_object"}},
            GrammarKind.JSON_SCHEMA,
            {"type": "object"},
            "response_format",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
            GrammarKind.JSON_SCHEMA,
            SCHEMA,
            "response_format.json_schema.schema",
        ),
        ({"json_schema": SCHEMA}, GrammarKind.JSON_SCHEMA, SCHEMA, "json_schema"),
        ({"json_schema": orjson.dumps(CONST).decode()}, GrammarKind.JSON_SCHEMA, CONST, "json_schema"),
        (
            {"response_format": {"type": "json_object", "schema": CONST}},
            GrammarKind.JSON_SCHEMA,
            CONST,
            "response_format.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "schema": CONST, "name": "n", "strict": True}},
            GrammarKind.JSON_SCHEMA,
            CONST,
            "response_format.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
            GrammarKind.JSON_SCHEMA,
            SCHEMA,
            "response_format.json_schema",
        ),
        ({"guided_json": CONST}, GrammarKind.JSON_SCHEMA, CONST, "guided_json"),
        ({"guided_json": '{"const": "42"}'}, GrammarKind.JSON_SCHEMA, CONST, "guided_json"),
        ({"guided_regex": "a+"}, GrammarKind.REGEX, "a+", "guided_regex"),
        ({"guided_choice": ["a", 'b"', "a"]}, GrammarKind.LARK, 'start: "a" | "b\\""', "guided_choice"),
        ({"guided_grammar": 'root ::= "a"'}, GrammarKind.GBNF, 'root ::= "a"', "guided_grammar"),
        ({"guided_grammar": 'start: "a"'}, GrammarKind.LARK, 'start: "a"', "guided_grammar"),
        ({"structured_outputs": {"json": CONST}}, GrammarKind.JSON_SCHEMA, CONST, "structured_outputs.json"),
        (
            {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
            GrammarKind.JSON_SCHEMA,
            {"type": "object"},
            "structured_outputs.json_object",
        ),
        (
            {"structured_outputs": {"choice": ["x"]}},
            GrammarKind.LARK,
            'start: "x"',
            "structured_outputs.choice",
        ),
        ({"grammar": 'root ::= "a"'}, GrammarKind.GBNF, 'root ::= "a"', "grammar"),
        ({"regex": "a+"}, GrammarKind.REGEX, "a+", "regex"),
        ({"lark": 'start: "a"'}, GrammarKind.LARK, 'start: "a"', "lark"),
    ],
)
def test_each_field_is_a_grammar(
    fields: dict[str, Any], kind: GrammarKind, source: object, param: str
) -> None:
    grammar = chat(**fields).grammar
    assert grammar is not None
    assert (grammar.kind, grammar.param) == (kind, param)
    assert (orjson.loads(grammar.source) if isinstance(source, dict) else grammar.source) == source


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "text"}}, {"grammar": ""}, {"regex": "", "lark": ""}]
)
def test_what_says_nothing_is_no_grammar(fields: dict[str, Any]) -> None:
    assert chat(**fields).grammar is None


def test_completions_know_them_too() -> None:
    body = orjson.dumps({"model": "m", "prompt": ["a", "b"], "regex": "x"})
    grammars = [request.grammar for request in decode_body(body, CompletionBody).to_requests()]
    assert [grammar.source for grammar in grammars if grammar is not None] == ["x", "x"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json", "value": {}}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "value": {}}}, "response_format.value"),
        ({"response_format": {"type": "text", "schema": CONST}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "schema": CONST, "json_schema": {"schema": CONST}}},
            "response_format.json_schema.schema",
        ),
        ({"guided_json": "[1"}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["x" * 300_000]}, "guided_choice.0"),
        ({"guided_json": CONST, "regex": "a"}, "guided_json"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice"),
        ({"format": "json"}, "format"),
        ({"ebnf": "a"}, "ebnf"),
        ({"json_mode": True}, "json_mode"),
        ({"grammar_triggers": ["a"]}, "grammar_triggers"),
        ({"response_schema": {}, "structured_generation": {"a": 1}}, "structured_generation"),
        ({"regex": "a", "grammar": "b"}, "regex"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, "regex"),
        ({"json_schema": "no object"}, "json_schema"),
        ({"json_schema": {"const": "x" * 300_000}}, "json_schema"),
        ({"priority": 101}, "priority"),
        ({"cache_prompt": 1}, "cache_prompt"),
    ],
)
def test_what_is_incomplete_doubled_or_mistyped_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ClientError) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_priority_and_cache_reach_the_engine() -> None:
    request = chat(priority=3, cache_prompt=False)
    assert (request.priority, request.use_cache) == (3, False)


def test_defaults_share_and_have_no_priority() -> None:
    request = chat()
    assert (request.priority, request.use_cache) == (0, True)
