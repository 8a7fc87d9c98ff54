"""Schemas in Gemma's notation: what may be written is read as JSON that is valid, and nothing valid is missing."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.chat.formats import SHAPES, ToolFormat
from kolosal.chat.grammar import TurnFacts
from kolosal.engines.worker.constraint import ConstraintCompiler, WantedTurn
from kolosal.errors import InvalidRequest
from kolosal.schema import Tool, ToolMode, ToolUse
from tests.chat.vocabulary import Vocabulary, allowed, may_end

FACTS = TurnFacts(ToolFormat.GEMMA, None)


def fits(schema: dict[str, Any], written: str, *, as_tokens: bool = True) -> bool:
    """Whether arguments, with ' for the mark around strings, may be written for a tool of this schema."""
    vocabulary = Vocabulary(*SHAPES[ToolFormat.GEMMA].markers) if as_tokens else Vocabulary()
    use = ToolUse((Tool("f", parameters=schema, strict=True),), ToolMode.REQUIRED, parallel=False)
    constraint = ConstraintCompiler(vocabulary.tokenizer).compile(WantedTurn(use, None, FACTS))
    text = f"<|tool_call>call:f{written}<tool_call|>".replace("'", '<|"|>')
    tokens = vocabulary(text)
    return allowed(constraint, tokens) == len(tokens) and may_end(constraint)


def members(*required: str, **properties: object) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (members("a", a={"type": "string"}), ["{a:''}", "{a:'x, {y} <b> \"é\"\n'}"], ["{}", "{a:x}", "{a:1}", "{'a':'x'}"]),
        (members("a", a={"type": "string", "maxLength": 2, "minLength": 1}), ["{a:'é'}", "{a:'xy'}"], ["{a:''}", "{a:'xyz'}"]),
        (members("a", a={"type": "integer", "minimum": 1, "maximum": 9}), ["{a:5}"], ["{a:0}", "{a:10}", "{a:1.5}"]),
        (members("a", a={"type": "boolean"}), ["{a:true}"], ["{a:True}", "{a:'true'}"]),
        (members("a", a={"enum": ["x", 1, None, True]}), ["{a:'x'}", "{a:1}", "{a:null}", "{a:true}"], ["{a:'y'}", "{a:2}"]),
        (members("a", a={"const": "x"}), ["{a:'x'}"], ["{a:'y'}"]),
        (members("a", a={"type": ["string", "null"]}), ["{a:'x'}", "{a:null}"], ["{a:1}"]),
        (members("a", a={"anyOf": [{"type": "string"}, {"type": "integer"}]}), ["{a:'x'}", "{a:3}"], ["{a:null}"]),
        (
            members("a", a={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}),
            ["{a:['x']}", "{a:['x','y']}"],
            ["{a:[]}", "{a:['x','y','z']}", "{a:[1]}"],
        ),
        (members("a", a={"type": "array"}), ["{a:[]}", "{a:[1,'x',{k:null}]}"], ["{a:{}}"]),
        (members("a", a=members("b", b={"type": "number"})), ["{a:{b:1.5}}"], ["{a:{}}", "{a:{c:1}}"]),
        (members("b", a={"type": "null"}, b={"type": "null"}, c={"type": "null"}),
         ["{b:null}", "{a:null,b:null}", "{b:null,c:null}", "{a:null,b:null,c:null}"],
         ["{}", "{a:null}", "{b:null,a:null}", "{a:null,c:null}", "{b:null,}"]),
        (members(a={"type": "null"}, b={"type": "null"}),
         ["{}", "{a:null}", "{b:null}", "{a:null,b:null}"], ["{,b:null}", "{a:null,}", "{c:null}"]),
        (members(), ["{}"], ["{a:1}"]),
        ({}, ["{}", "{a:1,b:'x',c:[true]}"], ["{a}", "1"]),
        (members("a b", **{"a b": {"type": "null"}}), ["{'a b':null}"], ["{a b:null}"]),
        (
            members("a", a={"$ref": "#/$defs/T"}) | {"$defs": {"T": members("v", v={"type": "null"}, next={"$ref": "#/$defs/T"})}},
            ["{a:{v:null}}", "{a:{v:null,next:{v:null,next:{v:null}}}}"],
            ["{a:{next:{v:null}}}"],
        ),
        ({"type": "object", "required": ["z"]}, ["{z:1}", "{z:'x'}"], ["{}"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_tokens", [True, False], ids=["tokens", "text"])
def test_schema_is_held_to(schema: dict[str, Any], good: list[str], bad: list[str], as_tokens: bool) -> None:
    assert [text for text in good if not fits(schema, text, as_tokens=as_tokens)] == []
    assert [text for text in bad if fits(schema, text, as_tokens=as_tokens)] == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "patternProperties": {"a": {}}}, "patternProperties"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "oneOf"),
        ({"type": "strin"}, "no type"),
        ({"$ref": "#/$defs/Nothing"}, "leads nowhere"),
        ({"$ref": "http://x/y"}, "leads nowhere"),
        ({"anyOf": [{"type": "string"}], "not": {}}, "not"),
        ({"type": "object", "properties": []}, "properties"),
    ],
)
def test_schema_that_cannot_be_held_to_is_refused_and_named(value: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        fits(members("a", a=value), "{}")
    assert caught.value.param == "tools.0.function.parameters"
