"""The key of the conversation paths, and where clients put it."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from kolosal.errors import Forbidden
from kolosal.routes.conversation.errors import refused
from kolosal.routes.services import services_of


def check_key(request: Request, *, in_query: bool) -> None:
    """Let a request through. Without a key in the settings everybody is let through.

    The key is looked for in `X-API-Key`, in `Authorization: Bearer …`, and with `in_query` in the query's `x_api_key`.

    Raises:
        InvalidRequest: there is no key where there should be one.
        Forbidden: it is another key.
    """
    services = services_of(request)
    wanted = services.conversation.api_key
    if wanted is None or services.authenticator.needed:  # the daemon's own keys were asked for already
        return
    given = _given_key(request, in_query=in_query)
    if given is None:
        where = ("query", "x_api_key") if in_query else ("header", "x-api-key")
        raise refused("missing", where, f"Missing required field: {where[1]}")
    if not hmac.compare_digest(_bytes(given), _bytes(wanted)):
        raise Forbidden("The API key is wrong")


def _bytes(key: str) -> bytes:
    """A key as bytes, also one that an environment variable holds in another encoding than ours."""
    return key.encode(errors="surrogateescape")


def _given_key(request: Request, *, in_query: bool) -> str | None:
    if key := request.headers.get("x-api-key"):
        return key
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return (request.query_params.get("x_api_key") or None) if in_query else None
