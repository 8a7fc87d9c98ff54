"""What errors look like in each dialect, for the document: their types, and which statuses they come with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kolosal.errors import ERROR_TABLE, InternalError, KolosalError, error_row
from kolosal.http.responses import OpenAIError
from kolosal.routes.anthropic import errors as anthropic
from kolosal.routes.common.operation import Group
from kolosal.routes.conversation import errors as conversation
from kolosal.routes.jsonrpc import errors as jsonrpc
from kolosal.routes.jsonrpc.envelope import RpcFailure
from kolosal.routes.ollama import errors as ollama
from kolosal.routes.openapi.schemas import Mode, Schemas


@dataclass(frozen=True, slots=True)
class ErrorDialect:
    """How a group of endpoints words errors."""

    name: str
    """How the document calls their answers."""
    body: type
    status: Callable[[KolosalError], int]
    word: Callable[[KolosalError], object]
    """The word by which programs know an error."""


def _openai_status(error: KolosalError) -> int:
    return error_row(error).status


def _openai_word(error: KolosalError) -> str:
    row = error_row(error)
    return row.openai_code or row.openai_type


_OPENAI = ErrorDialect("OpenAI", OpenAIError, _openai_status, _openai_word)

_DIALECTS = {
    Group.ANTHROPIC: ErrorDialect(
        "Anthropic",
        anthropic.AnthropicError,
        anthropic.error_status,
        lambda error: anthropic.error_body(error)["error"]["type"],
    ),
    Group.OLLAMA: ErrorDialect(
        "Ollama",
        ollama.OllamaError,
        ollama.error_status,
        lambda error: HTTPStatus(ollama.error_status(error)).phrase,
    ),
    Group.JSON_RPC: ErrorDialect(
        "JsonRpc", RpcFailure, _openai_status, lambda error: int(jsonrpc.transport_error(error).code)
    ),
    Group.SESSIONS: ErrorDialect("Detail", jsonrpc.DetailError, jsonrpc.detail_status, lambda _: "detail"),
    Group.CONVERSATION: ErrorDialect(
        "Conversation", conversation.ConversationError, conversation.error_status, _openai_word
    ),
}
"""Groups that word errors in another way than OpenAI."""

_RANGES = {
    "4XX": ("ClientError", "The request cannot be served as it is."),
    "5XX": ("ServerError", "The daemon or an engine is at fault."),
}
"""What answers are called, and what they mean, by their range of statuses."""


def error_types() -> Iterable[tuple[Any, Mode]]:
    """The types of all errors."""
    return ((dialect.body, "serialization") for dialect in (_OPENAI, *_DIALECTS.values()))


def error_references(group: Group) -> dict[str, dict[str, str]]:
    """The error answers of every endpoint of a group."""
    name = _DIALECTS.get(group, _OPENAI).name
    return {
        statuses: {"$ref": f"#/components/responses/{name}{kind}"} for statuses, (kind, _) in _RANGES.items()
    }


def error_responses(schemas: Schemas) -> dict[str, dict[str, Any]]:
    """Components: an answer for each dialect and range of statuses."""
    return {
        f"{dialect.name}{kind}": {
            "description": f"{meaning} {_statuses(dialect, statuses[0])}",
            "content": {"application/json": {"schema": schemas.of(dialect.body, "serialization")}},
        }
        for dialect in (_OPENAI, *_DIALECTS.values())
        for statuses, (kind, meaning) in _RANGES.items()
    }


def _statuses(dialect: ErrorDialect, first_digit: str) -> str:
    """The statuses of a range that errors have, with the words for them."""
    errors = (InternalError() if cls is InternalError else cls("") for cls in ERROR_TABLE)
    rows = sorted({(dialect.status(error), str(dialect.word(error))) for error in errors})
    return ", ".join(f"{status} `{word}`" for status, word in rows if str(status)[0] == first_digit)
