"""The JSON of JSON-RPC over HTTP, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from kolosal.http.decode import RequestBody
from kolosal.routes.jsonrpc.params import CreateMessageParams


class RpcBody(RequestBody):
    """A request; several may be sent as an array."""

    jsonrpc: Literal["2.0"]
    method: Literal["create_message", "tool_list"]
    """What to do."""
    params: CreateMessageParams | None = None
    """Of `create_message`."""
    id: str | int | None = None
    """Comes back in the answer. A request without an id is not answered: 204."""


class AnsweredCall(TypedDict):
    """A call the model made."""

    tool: str
    parameters: dict[str, Any]


class AnsweredTurn(TypedDict):
    """A turn of the history."""

    role: Literal["user", "assistant", "tool", "system"]
    content: str | None
    tool_calls: list[AnsweredCall] | None
    tool_name: str | None
    tool_result: Any
    tool_error: str | None


class CreatedMessage(TypedDict):
    """The result of `create_message`."""

    type: Literal["final_text", "tool_calls"]
    content: str | list[AnsweredCall]
    history: list[AnsweredTurn]
    """The whole conversation with this turn; to be sent again with the next request."""
    iteration_count: int
    """To be sent again with the results of tools."""


class ToolList(TypedDict):
    """The result of `tool_list`."""

    tools: list[Any]
    """Always empty: tools are the client's own."""


class RpcFailure(TypedDict):
    """Why a request failed."""

    code: int
    message: str
    data: NotRequired[dict[str, Any]]


class RpcAnswer(TypedDict):
    """An answer: `result` or `error`, never both."""

    jsonrpc: Literal["2.0"]
    result: NotRequired[CreatedMessage | ToolList]
    error: NotRequired[RpcFailure]
    id: str | int | None
