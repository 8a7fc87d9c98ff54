"""The daemon's answers, as the client reads them: JSON in, small types and errors out.

Trusts nothing of what it reads: whatever listens at an address may not be a daemon at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TypeAlias

from pydantic import JsonValue

from kolosal.commands.errors import ApiError, CommandError

Body: TypeAlias = dict[str, JsonValue]
"""A JSON object that is sent or was received."""


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the daemon says of one engine; None where it does not say."""

    engine_id: str
    state: str
    model_path: str | None = None
    backend: str | None = None
    n_ctx: int | None = None
    in_flight: int | None = None
    last_accessed: datetime | None = None
    load_progress: float | None = None
    """0…1."""
    last_error: str | None = None

    @classmethod
    def parse(cls, body: Body) -> EngineView:
        """An engine out of the answer that lists or shows it."""
        parameters = body.get("loading_parameters")
        n_ctx = parameters.get("n_ctx") if isinstance(parameters, dict) else None
        return cls(
            engine_id=str(body.get("engine_id", "")),
            state=str(body.get("state") or body.get("status") or "unknown"),
            model_path=_text(body.get("model_path")),
            backend=_text(body.get("backend")),
            n_ctx=_integer(n_ctx),
            in_flight=_integer(body.get("in_flight")),
            last_accessed=_time(body.get("last_accessed")),
            load_progress=_number(body.get("load_progress")),
            last_error=_text(body.get("last_error")),
        )


def piece_of(data: str) -> str:
    """The text of one chunk.

    Raises:
        ApiError: the chunk says that generating failed.
    """
    chunk = json_object(data)
    if "error" in chunk:
        raise ApiError(_error_message(chunk) or "The daemon gave no reason", 500)
    for choice in items(chunk.get("choices")):
        delta = choice.get("delta")
        if isinstance(delta, dict):
            return _text(delta.get("content")) or ""
    return ""


def api_error(status: int, content: bytes) -> ApiError:
    """The error an answer holds, in the daemon's own words where it has some."""
    try:
        message = _error_message(json_object(content))
    except CommandError:
        message = None
    hint = " (this command sends the one of KOLOSAL_API_KEY)" if status == HTTPStatus.UNAUTHORIZED else ""
    return ApiError((message or f"The daemon answered HTTP {status}") + hint, status)


def _error_message(body: Body) -> str | None:
    error = body.get("error")
    return _text(error.get("message")) if isinstance(error, dict) else _text(error)


def json_object(content: str | bytes) -> Body:
    """A body. Raises CommandError where it is no JSON object."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise CommandError("What answers at this address is not a Kolosal daemon")
    return body


def items(value: JsonValue) -> list[Body]:
    """The objects in a list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: JsonValue) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _integer(value: JsonValue) -> int | None:
    return value if isinstance(value, int) else None


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None
