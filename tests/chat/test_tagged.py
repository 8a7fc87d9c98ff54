"""Schemas as arguments in tags: what may be written is valid, strings stand as they are."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.chat.formats import ToolFormat
from kolosal.chat.grammar import TurnFacts
from kolosal.engines.worker.constraint import ConstraintCompiler, WantedTurn
from kolosal.errors import InvalidRequest
from kolosal.schema import Tool, ToolMode, ToolUse
from tests.chat.vocabulary import Vocabulary, allowed, may_end


def fits(schema: dict[str, Any], **arguments: str) -> bool:
    """Whether these arguments may be written in this order for a tool of this schema."""
    vocabulary = Vocabulary("<tool_call>", "</tool_call>")
    use = ToolUse((Tool("f", parameters=schema, strict=True),), ToolMode.REQUIRED, parallel=False)
    facts = TurnFacts(ToolFormat.QWEN_CODER, None)
    constraint = ConstraintCompiler(vocabulary.tokenizer).compile(WantedTurn(use, None, facts))
    tags = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in arguments.items())
    tokens = vocabulary(f"<tool_call>\n<function=f>\n{tags}</function>\n</tool_call>")
    return allowed(constraint, tokens) == len(tokens) and may_end(constraint)


def members(*required: str, **properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        ({"type": "string"}, ["", "x", '"x"', "def f():\n    <b>\n"], []),
        ({"type": "string", "minLength": 1, "maxLength": 2}, ["x", "é\n"], ["", "xyz"]),
        ({"enum": ["c", "f"]}, ["c", "f"], ["k", '"c"']),
        ({"const": "c"}, ["c"], ["f"]),
        ({"type": "integer", "minimum": 1}, ["5"], ["0", '"5"', "x"]),
        ({"type": "array", "items": {"type": "string"}}, ["[]", '["a", "b"]'], ["[1]", "a"]),
        ({"type": ["string", "null"]}, ['"x"', "null"], ["x"]),
        ({"$ref": "#/$defs/T"}, ["1"], ["2"]),
    ],
)
def test_value_is_held_to_its_schema(value: dict[str, Any], good: list[str], bad: list[str]) -> None:
    schema = members("a", a=value) | {"$defs": {"T": {"const": 1}}}

    assert [text for text in good if not fits(schema, a=text)] == []
    assert [text for text in bad if fits(schema, a=text)] == []


def test_required_arguments_are_there_and_others_may_be() -> None:
    schema = members("b", a={"type": "null"}, b={"type": "null"}, c={"type": "null"})

    assert fits(schema, b="null")
    assert fits(schema, a="null", b="null", c="null")
    assert not fits(schema)
    assert not fits(schema, a="null")
    assert not fits(schema, b="null", d="null")


def test_required_arguments_without_a_schema_are_any_json() -> None:
    assert fits({"type": "object", "required": ["z"]}, z='{"k": [1]}')


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (members(a={"type": "string", "pattern": "x"}), "pattern"),
        (members() | {"anyOf": []}, "anyOf"),
        ({"type": "object", "properties": []}, "properties"),
    ],
)
def test_schema_that_cannot_be_held_to_is_refused_and_named(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        fits(schema)
    assert caught.value.param == "tools.0.function.parameters"
