"""What errors look like in each dialect, for the document: shapes, and which statuses they come with."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from kolosal.errors import ERROR_TABLE, InternalError, KolosalError, error_row
from kolosal.routes.anthropic import errors as anthropic
from kolosal.routes.ollama import errors as ollama
from kolosal.routes.operation import Group

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}

_OPENAI = "OpenAIError"
_ANTHROPIC = "AnthropicError"
_OLLAMA = "OllamaError"

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
    errors = (InternalError() if cls is InternalError else cls("") for cls in ERROR_TABLE)
    rows = sorted({_WORDINGS[shape](error) for error in errors})
    return ", ".join(f"{status} `{word}`" for status, word in rows if str(status)[0] == first_digit)


def _openai(error: KolosalError) -> tuple[int, str]:
    row = error_row(error)
    return row.status, row.openai_code or row.openai_type


def _anthropic(error: KolosalError) -> tuple[int, str]:
    return anthropic.error_status(error), str(anthropic.error_body(error)["error"]["type"])


def _ollama(error: KolosalError) -> tuple[int, str]:
    status = ollama.error_status(error)
    return status, HTTPStatus(status).phrase


_SHAPES = {Group.ANTHROPIC: _ANTHROPIC, Group.OLLAMA: _OLLAMA}
"""The shapes of groups whose errors are not OpenAI's."""

_WORDINGS: dict[str, Callable[[KolosalError], tuple[int, str]]] = {
    _OPENAI: _openai,
    _ANTHROPIC: _anthropic,
    _OLLAMA: _ollama,
}
"""For each shape what an error's status is there, and the word that says which error it is."""
