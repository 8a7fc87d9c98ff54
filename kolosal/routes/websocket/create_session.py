"""`POST /create_session`: tools and a model, kept for the connections to `/ws/{session_id}`."""

from __future__ import annotations

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.errors import ClientError, PayloadTooLarge
from kolosal.http.body import read_json
from kolosal.http.decode import RequestBody, decode_body
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.fields import ModelName
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of
from kolosal.routes.jsonrpc.errors import DetailError
from kolosal.routes.jsonrpc.tools import RpcTools, to_tools

MAX_SESSION_BYTES = 1024 * 1024
"""Bytes of the body: what a session keeps."""

_INVALID_BODY = "Invalid request body or internal error."
"""The `detail` that older clients look for; `reason` says what was wrong."""


class SessionBody(RequestBody):
    """A new session; the body may be empty."""

    tools: RpcTools | None = None
    """Tools of every `generate` that brings none of its own."""
    model: ModelName | None = None
    """An `engine_id`, for every `generate` that names none; the default engine unless given."""


class SessionCreated(TypedDict):
    """A new session."""

    session_id: str
    """To be connected to: `/ws/{session_id}`."""


@Operation(
    group=Group.SESSIONS,
    scope=Access.INFERENCE,
    body=SessionBody,
    answer="The session's id.",
    example={"tools": []},
)
async def create_session(request: Request) -> JsonResponse[SessionCreated] | JsonResponse[DetailError]:
    """Begin a session, to be connected to with a WebSocket."""
    try:
        body = await read_json(request)
        if len(body) > MAX_SESSION_BYTES:
            raise PayloadTooLarge(f"The body is longer than {MAX_SESSION_BYTES} bytes")
        settings = decode_body(body, SessionBody) if body.strip() not in (b"", b"null") else SessionBody()
        tools = to_tools(settings.tools or ())
    except PayloadTooLarge:
        raise
    except ClientError as exc:
        return JsonResponse(DetailError(detail=_INVALID_BODY, reason=exc.message), 400)
    caller = caller_of(request)
    session = caller.services.sessions.create(tools, settings.model, len(body), caller.key_id)
    if caller.services.kept_sessions.is_on:
        await caller.services.kept_sessions.add(session)
    return JsonResponse(SessionCreated(session_id=session.id))
