"""Parameters of the methods of a session: fields and bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field, JsonValue

from kolosal.http.decode import RequestBody
from kolosal.routes.common.tools import ToolCallId
from kolosal.routes.jsonrpc.envelope import MAX_ID_CHARS
from kolosal.routes.jsonrpc.history import MAX_CALLS, HistoryMessage
from kolosal.routes.jsonrpc.params import GenerationParams
from kolosal.schema import ToolName

_NO_REASON = "the tool failed"
"""What a model is told of a tool that failed without a message."""


class GenerateParams(GenerationParams):
    """Parameters of `generate`; unknown ones are ignored."""

    temperature: Annotated[float, Field(ge=0.01, le=2)] | None = None
    """As for `create_message`, but more than 0."""


class SessionToolResult(RequestBody):
    """What a tool gave."""

    tool_name: ToolName | None = Field(None, validation_alias=AliasChoices("tool_name", "toolName"))
    """The tool's name; the oldest call of that tool is answered."""
    tool_call_id: ToolCallId | None = None
    """The call it answers, where several are of one tool."""
    result: JsonValue = None
    """What it gave; anything."""
    is_error: bool | None = Field(None, validation_alias=AliasChoices("isError", "is_error"))
    """Whether it failed."""
    error_message: str | None = None
    """What went wrong."""

    def to_turn(self, tool: str) -> HistoryMessage:
        """The result as a turn, of the tool that was called."""
        error = (self.error_message or _NO_REASON) if self.is_error else None
        return HistoryMessage(role="tool", tool_name=tool, tool_result=self.result, tool_error=error)


class ToolResultParams(RequestBody):
    """Parameters of `tool_result`; unknown ones are ignored."""

    task_id: Annotated[str, Field(max_length=MAX_ID_CHARS)]
    """The task that asked for it."""
    results: Annotated[tuple[SessionToolResult, ...], Field(min_length=1, max_length=MAX_CALLS)]
    """Results of one or several calls."""
