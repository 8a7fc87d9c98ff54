"""Responses that all dialects share: JSON, and errors in the OpenAI shape.

Owns how an error of `kolosal.errors` looks on the wire. Dialects with another shape bring their own encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NotRequired, TypeVar

import orjson
from starlette.responses import Response
from typing_extensions import TypedDict

from kolosal.errors import KolosalError, error_row

T_co = TypeVar("T_co", covariant=True)


class JsonResponse(Response, Generic[T_co]):
    """JSON that says it is UTF-8: without the charset Windows PowerShell 5.1 reads it as ISO-8859-1.

    `JsonResponse[T]` holds a `T`. An endpoint that says so in its return type has it checked by mypy, and told by
    `/openapi.json`.
    """

    media_type = "application/json; charset=utf-8"

    def __init__(self, content: T_co, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(orjson.dumps(content), status, headers)


class NoContent(Response):
    """204: it went well, and there is nothing to say."""

    def __init__(self) -> None:
        super().__init__(status_code=204)


class OpenAIErrorObject(TypedDict):
    """What went wrong."""

    message: str
    """One sentence: what was given and what is allowed."""
    type: str
    param: str | None
    """The dotted path of the field at fault."""
    code: str | None
    n_prompt_tokens: NotRequired[int]
    n_ctx: NotRequired[int]
    details: NotRequired[Mapping[str, object]]
    """Facts about a model that cannot be loaded."""


class OpenAIError(TypedDict):
    """An error, as the OpenAI clients know it."""

    error: OpenAIErrorObject


def error_body(error: KolosalError) -> OpenAIError:
    """An error as a value of JSON."""
    row = error_row(error)
    body: OpenAIErrorObject = {
        "message": error.message,
        "type": row.openai_type,
        "param": error.param,
        "code": row.openai_code,
    }
    body.update(error.facts)  # type: ignore[typeddict-item] # mypy wants all keys
    if error.details is not None:
        body["details"] = error.details
    return {"error": body}


def error_response(error: KolosalError) -> JsonResponse[OpenAIError]:
    """An error before anything was sent: a real status line."""
    return JsonResponse(error_body(error), error_row(error).status, retry_after(error))


def retry_after(error: KolosalError) -> dict[str, str]:
    """The header that says when to come back, for errors that pass."""
    return {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
