"""What errors look like in each dialect, for the document: shapes, and which statuses they come with."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from kolosal.errors import ERROR_TABLE, InternalError, KolosalError, error_row
from kolosal.routes.anthropic import errors as anthropic
from kolosal.routes.common.operation import Group
from kolosal.routes.conversation import errors as conversation
from kolosal.routes.jsonrpc import errors as jsonrpc
from kolosal.routes.ollama import errors as ollama

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}

_OPENAI = "OpenAIError"
_ANTHROPIC = "AnthropicError"
_OLLAMA = "OllamaError"
_JSON_RPC = "JsonRpcError"
_DETAIL = "DetailError"
_CONVERSATION = "ConversationError"

_SHAPES = {
    Group.ANTHROPIC: _ANTHROPIC,
    Group.OLLAMA: _OLLAMA,
    Group.JSON_RPC: _JSON_RPC,
    Group.SESSIONS: _DETAIL,
    Group.CONVERSATION: _CONVERSATION,
}
"""Groups with another shape than OpenAI's."""

_FAULT = {
    "type": "object",
    "required": ["type", "loc", "msg", "input"],
    "properties": {
        "type": _TEXT,
        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        "msg": _TEXT,
        "input": {"description": "What was given, in part."},
    },
}

ERROR_SCHEMAS: dict[str, dict[str, Any]] = {
    _OPENAI: {
        "type": "object",
        "description": "An error, as the OpenAI clients know it.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {**_TEXT, "description": "One sentence: what was given and what is allowed."},
                    "type": _TEXT,
                    "param": {**_TEXT_OR_NULL, "description": "The dotted path of the field at fault."},
                    "code": _TEXT_OR_NULL,
                    "details": {
                        "type": "object",
                        "description": "Facts about a model that cannot be loaded.",
                    },
                },
            }
        },
    },
    _ANTHROPIC: {
        "type": "object",
        "description": "An error, as the Anthropic clients know it.",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": _TEXT, "message": _TEXT},
            },
            "request_id": _TEXT_OR_NULL,
        },
    },
    _OLLAMA: {
        "type": "object",
        "description": "An error, as the Ollama clients know it.",
        "required": ["error"],
        "properties": {"error": _TEXT},
    },
    _JSON_RPC: {
        "type": "object",
        "description": "An error, as JSON-RPC has it.",
        "required": ["jsonrpc", "error", "id"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "integer"}, "message": _TEXT, "data": {"type": "object"}},
            },
            "id": {"type": ["string", "integer", "null"]},
        },
    },
    _DETAIL: {
        "type": "object",
        "description": "An error in one sentence.",
        "required": ["detail"],
        "properties": {"detail": _TEXT, "reason": _TEXT},
    },
    _CONVERSATION: {
        "type": "object",
        "description": "A sentence, or where a field is at fault a list that says which, and why.",
        "required": ["detail"],
        "properties": {"detail": {"anyOf": [_TEXT, {"type": "array", "items": _FAULT}]}},
    },
}
"""Components; the names of the shapes."""

_RANGES = {
    "4XX": ("ClientError", "The request cannot be served as it is."),
    "5XX": ("ServerError", "The daemon or an engine is at fault."),
}
"""What answers are called, and what they mean, by their range of statuses."""


def refusals(group: Group) -> dict[str, dict[str, str]]:
    """The error answers of every endpoint of a group."""
    shape = _SHAPES.get(group, _OPENAI)
    return {
        statuses: {"$ref": f"#/components/responses/{_name(shape, kind)}"}
        for statuses, (kind, _) in _RANGES.items()
    }


def error_responses() -> dict[str, dict[str, Any]]:
    """Components: an answer for each shape and range of statuses."""
    return {
        _name(shape, kind): {
            "description": f"{meaning} {_statuses(shape, statuses[0])}",
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}},
        }
        for shape in ERROR_SCHEMAS
        for statuses, (kind, meaning) in _RANGES.items()
    }


def _name(shape: str, kind: str) -> str:
    return shape.removesuffix("Error") + kind


def _statuses(shape: str, first_digit: str) -> str:
    """The statuses of a range that errors have, with the words for them."""
    told = _TOLD.get(shape, _openai)
    errors = (InternalError() if cls is InternalError else cls("") for cls in ERROR_TABLE)
    rows = sorted({told(error) for error in errors})
    return ", ".join(f"{status} `{word}`" for status, word in rows if str(status)[0] == first_digit)


def _openai(error: KolosalError) -> tuple[int, str]:
    row = error_row(error)
    return row.status, row.openai_code or row.openai_type


def _anthropic(error: KolosalError) -> tuple[int, str]:
    return anthropic.error_status(error), str(anthropic.error_body(error)["error"]["type"])


def _ollama(error: KolosalError) -> tuple[int, str]:
    status = ollama.error_status(error)
    return status, HTTPStatus(status).phrase


def _json_rpc(error: KolosalError) -> tuple[int, str]:
    return error_row(error).status, str(int(jsonrpc.transport_error(error).code))


def _detail(error: KolosalError) -> tuple[int, str]:
    return jsonrpc.detail_status(error), "detail"


def _conversation(error: KolosalError) -> tuple[int, str]:
    row = error_row(error)
    return conversation.error_status(error), row.openai_code or row.openai_type


_TOLD: dict[str, Callable[[KolosalError], tuple[int, str]]] = {
    _ANTHROPIC: _anthropic,
    _OLLAMA: _ollama,
    _JSON_RPC: _json_rpc,
    _DETAIL: _detail,
    _CONVERSATION: _conversation,
}
"""Status and word of an error, for the shapes other than OpenAI's."""
