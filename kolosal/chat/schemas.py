"""JSON schemas of tools and answers, as llguidance is given them, with its `x-guidance` options.

https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
"""

from __future__ import annotations

import json
from typing import Any

from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind, Tool

ANSWER = "answer"
"""What the Lark source calls the answer's own grammar."""

JSON_SPACING: dict[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""JSON gets one fixed white space: what models write anyway, and a small model cannot lose itself in blanks."""


def tool_schema(position: int, tool: Tool) -> dict[str, Any]:
    """What a call's arguments must conform to, with our white space.

    Raises:
        InvalidRequest: it is not the schema of an object.
    """
    kind = tool.parameters.get("type", "object")
    if kind != "object":
        raise InvalidRequest(
            f"Field {tool_param(position, tool)}.type must be 'object', not {json.dumps(kind)[:100]}",
            param=tool_param(position, tool),
        )
    return {**tool.parameters, "type": "object", "x-guidance": tool_guidance(tool)}


def tool_guidance(tool: Tool) -> dict[str, Any]:
    """How a tool's schema is read: with our white space, and leniently where the tool is not strict.

    Schemas of tools are written for people and validators as well: `not`, `if` or an unknown `format` must not keep a
    model from being asked.
    """
    return {**JSON_SPACING, "lenient": not tool.strict}


def tool_param(position: int, tool: Tool) -> str:
    """The request field of a tool's schema."""
    return tool.param or f"tools.{position}.function.parameters"


def call_schema(position: int, tool: Tool) -> str:
    """A whole call as JSON, for where it competes with an answer in JSON: llguidance takes only like with like for one."""
    parameters = tool_schema(position, tool)
    shared: dict[str, Any] = {
        name: parameters.pop(name) for name in ("$defs", "definitions") if name in parameters
    }
    call: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }
    return dump({**call, **shared, "x-guidance": tool_guidance(tool)})


def answer_rule(answer: Grammar) -> str:
    """The answer's own grammar as part of a rule: JSON schemas in place, since llguidance takes them and a call's for one."""
    if answer.kind is GrammarKind.JSON_SCHEMA:
        try:
            schema = json.loads(answer.source)
        except (ValueError, RecursionError):
            return f"@{ANSWER}"  # compiled alone it tells what is wrong
        if isinstance(schema, dict) and isinstance(own := schema.get("x-guidance", {}), dict):
            return f"%json {dump({**schema, 'x-guidance': {**JSON_SPACING, **own}})}"
    return f"@{ANSWER}"


def dump(schema: dict[str, Any]) -> str:
    """A schema as `%json` takes it."""
    return json.dumps(schema, ensure_ascii=False)
