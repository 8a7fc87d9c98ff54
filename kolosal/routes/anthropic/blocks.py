"""Content blocks as Anthropic clients send them, typed. What they mean to an engine is said in `conversation.py`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from kolosal.http.decode import RequestBody
from kolosal.routes.common.fields import ARRAY, STRING, by_kind, by_type
from kolosal.routes.common.history import ArgumentsObject
from kolosal.routes.common.tools import ToolCallId
from kolosal.schema import MAX_TOOL_NAME_CHARS, ToolName

MAX_BLOCKS = 4096
"""Blocks of one message, and of one tool's result."""

CallId: TypeAlias = Annotated[ToolCallId, Field(min_length=1)]


class TextBlock(RequestBody):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(RequestBody):
    """What an earlier turn thought. The signature is not looked at: ours are empty."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(RequestBody):
    """Thoughts that only Anthropic can read; dropped."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(RequestBody):
    """A call that an earlier turn made."""

    type: Literal["tool_use"]
    id: CallId | None = None
    """Left out: results are paired by their order."""
    name: ToolName
    input: ArgumentsObject = Field(default_factory=dict)


class ToolReferenceBlock(RequestBody):
    """A tool that a search found; the model knows all tools anyway, so its name is enough."""

    type: Literal["tool_reference"]
    tool_name: Annotated[str, Field(max_length=MAX_TOOL_NAME_CHARS)]


class OtherBlock(RequestBody):
    """A block of a type that cannot stand here."""

    type: str


ResultBlock: TypeAlias = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ToolReferenceBlock, Tag("<tool_reference>")]
    | Annotated[OtherBlock, Tag("<other>")],
    by_type("text", "tool_reference"),
]


_STRING_OR_BLOCKS = by_kind("a string or an array of content blocks")

ResultContent: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[ResultBlock, ...], Field(max_length=MAX_BLOCKS), ARRAY],
    _STRING_OR_BLOCKS,
]


class ToolResultBlock(RequestBody):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: CallId | None = None
    content: ResultContent | None = None
    is_error: bool | None = None


Block: TypeAlias = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[RedactedThinkingBlock, Tag("<redacted_thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[OtherBlock, Tag("<other>")],
    by_type("text", "thinking", "redacted_thinking", "tool_use", "tool_result"),
]

Content: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[Block, ...], Field(max_length=MAX_BLOCKS), ARRAY],
    _STRING_OR_BLOCKS,
]

SystemContent: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[TextBlock, ...], Field(max_length=MAX_BLOCKS), ARRAY],
    _STRING_OR_BLOCKS,
]
