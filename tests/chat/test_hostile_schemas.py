"""Schemas that are no schemas, or too large: refused in words, whatever the family of the model. A worker reads them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kolosal.chat.formats import ToolFormat
from kolosal.chat.grammar import TurnFacts, TurnGrammar
from kolosal.errors import InvalidRequest
from kolosal.schema import Tool, ToolMode, ToolUse

MAX_GRAMMAR_CHARS = 3 * 1024 * 1024

FORMATS = pytest.mark.parametrize("tool_format", list(ToolFormat))

KEYWORDS = (
    *(
        "properties",
        "required",
        "type",
        "$defs",
        "definitions",
        "additionalProperties",
        "enum",
        "anyOf",
        "const",
    ),
    *("$ref", "items", "minLength", "maxItems", "title", "a"),
)
WORDS = st.sampled_from(("object", "string", "array", "integer", "a", "#/$defs/a", "#/definitions/a", ""))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=5)


def grammar(schema: dict[str, Any], tool_format: ToolFormat, *, strict: bool = False) -> str:
    tool = Tool("f", "", schema, strict=strict)
    use = ToolUse((tool,), ToolMode.AUTO)
    return TurnGrammar(use, None, TurnFacts(tool_format, None), lambda _: None, (1,)).source()


def named(count: int, letter: str, schema: object) -> dict[str, object]:
    return {f"{letter}{index}": schema for index in range(count)}


@given(SCHEMAS, st.sampled_from(ToolFormat), st.booleans())
@example({"properties": {"a": {"$ref": ["a"]}}}, ToolFormat.GEMMA, False)
@example({"properties": {"a": {"type": {}}}}, ToolFormat.GEMMA, False)
@example({"properties": {"a": {"type": [["x"]]}}}, ToolFormat.GEMMA, False)
@example({"properties": {}, "required": [["a"]]}, ToolFormat.QWEN_CODER, False)
@example({"properties": {"a": {"type": "string", "enum": 5}}}, ToolFormat.QWEN_CODER, False)
def test_anything_is_a_grammar_or_refused(
    schema: dict[str, Any], tool_format: ToolFormat, strict: bool
) -> None:
    with contextlib.suppress(InvalidRequest):
        assert grammar(schema, tool_format, strict=strict).startswith("%llguidance")


@FORMATS
def test_shared_definitions_do_not_multiply(tool_format: ToolFormat) -> None:
    definitions = named(3000, "d", {"type": "integer"})

    written = grammar({"properties": named(1500, "a", {}), "$defs": definitions}, tool_format)
    assert len(written) < MAX_GRAMMAR_CHARS
    with contextlib.suppress(InvalidRequest):
        schema = {"properties": named(1500, "a", {"$ref": "#/$defs/d0"}), "$defs": definitions}
        assert len(grammar(schema, tool_format)) < MAX_GRAMMAR_CHARS


def test_schema_that_makes_too_much_is_refused() -> None:
    schema = {
        "properties": named(1500, "a", {"$ref": "#/$defs/d0"}),
        "$defs": named(
            3000, "d", {"$ref": "#/$defs/d0", "type": "object", "properties": {"a": {"enum": ["x" * 2000]}}}
        ),
    }
    with pytest.raises(InvalidRequest, match="grammar of more than"):
        grammar(schema, ToolFormat.QWEN_CODER, strict=True)
    assert len(grammar(schema, ToolFormat.QWEN_CODER)) < 10_000


def test_arguments_that_refer_to_definitions_keep_them() -> None:
    written = grammar(
        {"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"type": "array"}}},
        ToolFormat.QWEN_CODER,
    )

    assert '"$defs": {"d0": {"type": "array"}}' in written


@FORMATS
def test_many_tools_that_make_too_much_are_refused(tool_format: ToolFormat) -> None:
    schema = {"properties": {"a": {"enum": ["x" * 60_000]}}}
    tools = tuple(Tool(f"f{index}", "", schema) for index in range(128))
    with pytest.raises(InvalidRequest, match=r"grammar of \d+ characters") as refused:
        TurnGrammar(
            ToolUse(tools, ToolMode.AUTO), None, TurnFacts(tool_format, None), lambda _: None, (1,)
        ).source()
    assert refused.value.param == "tools"
