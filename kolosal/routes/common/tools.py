"""The tools that a client offers, whatever the dialect: names, schemas, and no name twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Annotated, TypeAlias

from pydantic import Field

from kolosal.chat.json_schema.enforceable import enforceable_object
from kolosal.chat.schemas import refuse_unenforced
from kolosal.errors import InvalidRequest
from kolosal.routes.common.json_schema import JsonSchema, bounded_json, note_places
from kolosal.schema import MAX_SCHEMA_CHARS, Tool

ToolCallId: TypeAlias = Annotated[str, Field(max_length=256)]

ToolDescription: TypeAlias = Annotated[str, Field(max_length=65_536)]


def to_tool(
    name: str,
    description: str | None,
    schema: JsonSchema,
    param: str,
    *,
    strict: bool | None = False,
    unit: str = "characters as JSON",
) -> Tool:
    """A tool as engines know it; `param` is where its schema stands, `unit` as for `bounded_json`.

    What cannot be enforced of its schema is noted: a tool that may never be called must not fail the request.

    Raises:
        InvalidRequest: the schema is too large, or strict, and says what cannot be enforced.
    """
    bounded_json(schema, param, MAX_SCHEMA_CHARS, unit)
    found = enforceable_object(schema)
    if strict:
        refuse_unenforced(found, param)
    note_places(found, param)
    return Tool(name, description or "", schema, param, bool(strict))


def check_caller(role: str, calls: Collection[object] | None, path: str) -> None:
    """Refuse calls in a turn, the one at `path`, that is not the assistant's."""
    if calls and role != "assistant":
        raise InvalidRequest(
            f"{path}.tool_calls must be left out of a turn of the role {role}: only the assistant calls tools",
            param=f"{path}.tool_calls",
        )


def name_repeated(index: int, name: str) -> InvalidRequest:
    """What is said of a tool that has the name of an earlier one; OpenAI's dialects have other words."""
    return InvalidRequest(
        f"tools.{index}.name must be unique, but {name[:60]!r} was given before", param=f"tools.{index}.name"
    )


def distinct_tools(
    tools: Iterable[Tool], refusal: Callable[[int, str], InvalidRequest] = name_repeated
) -> tuple[Tool, ...]:
    """The tools, each with a name of its own, in their order."""
    found: dict[str, Tool] = {}
    for index, tool in enumerate(tools):
        if tool.name in found:
            raise refusal(index, tool.name)
        found[tool.name] = tool
    return tuple(found.values())
