"""JSON schemas of tools and answers, as llguidance is given them, with its `x-guidance` options.

https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
"""

from __future__ import annotations

import json
from typing import Any

from kolosal.chat.json_schema.enforceable import Enforceable, enforceable_object
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
        InvalidRequest: the tool is strict, and its schema says what cannot be enforced.
    """
    found = enforceable_object(tool.parameters)
    if tool.strict:
        refuse_unenforced(found, tool_param(position, tool))
    return {**found.schema, "x-guidance": tool_guidance(tool)}


def refuse_unenforced(found: Enforceable, param: str) -> None:
    """Refuse a strict schema of the request field `param`.

    Raises:
        InvalidRequest: not all that it says can be enforced; the message says where.
    """
    for each in found.unenforced[:1]:
        raise InvalidRequest(
            f"Field {param} cannot be enforced at {json.dumps(each.pointer[:300])}: {each.reason}, and strict is true",
            param=param,
        )


def tool_guidance(tool: Tool) -> dict[str, Any]:
    """How a tool's schema is read: with our white space, and leniently where the tool is not strict.

    Schemas of tools are written for people and validators as well: `not`, `if` or an unknown `format` must not keep a
    model from being asked.
    """
    return {**JSON_SPACING, "lenient": not tool.strict}


def tool_param(position: int, tool: Tool) -> str:
    """The request field of a tool's schema."""
    return tool.param or f"tools.{position}.function.parameters"


def open_schema(tool: Tool) -> dict[str, Any]:
    """What arguments of a tool conform to whose schema cannot be enforced at all."""
    return {"type": "object", "x-guidance": tool_guidance(tool)}


def call_schema(tool: Tool, parameters: dict[str, Any]) -> str:
    """A whole call as JSON, for where it competes with an answer in JSON: llguidance takes only like with like for one."""
    shared = {name: value for name, value in parameters.items() if name == "$defs"}
    parameters = {name: value for name, value in parameters.items() if name != "$defs"}
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
