"""`response_format` and its relatives: which grammar reaches the engine, and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kolosal.errors import InvalidRequest
from kolosal.http.decode import decode_body
from kolosal.routes.openai.chat import ChatCompletionBody
from kolosal.routes.openai.completions import CompletionBody
from kolosal.schema import GenerateRequest, GrammarKind

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


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


def test_text_is_no_grammar() -> None:
    assert chat(response_format={"type": "text"}).grammar is None


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
        ({"regex": "a", "grammar": "b"}, "regex"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, "regex"),
        ({"regex": ""}, "regex"),
        ({"json_schema": "no object"}, "json_schema"),
        ({"json_schema": {"const": "x" * 300_000}}, "json_schema"),
        ({"priority": 101}, "priority"),
        ({"cache_prompt": 1}, "cache_prompt"),
    ],
)
def test_what_is_incomplete_doubled_or_mistyped_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_priority_and_cache_reach_the_engine() -> None:
    request = chat(priority=3, cache_prompt=False)
    assert (request.priority, request.use_cache) == (3, False)


def test_defaults_share_and_have_no_priority() -> None:
    request = chat()
    assert (request.priority, request.use_cache) == (0, True)
