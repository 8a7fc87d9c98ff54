"""Whom each route answers: the API key of a request against what the endpoint's `Operation` asks for.

Put around every route by `create_app`, so that no route can be without: one that says nothing is for `admin` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.datastructures import Headers, QueryParams
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from kolosal.errors import Forbidden, KeyMissing, KolosalError
from kolosal.http.disconnect import watch_admission
from kolosal.observe.activity import ActivityLog
from kolosal.observe.context import REQUEST
from kolosal.routes.common.operation import Access, operation_of
from kolosal.security.auth import Authenticator
from kolosal.security.keys import ApiKey
from kolosal.security.keys import Scope as KeyScope

_KEY = "api_key"
"""Where a request's state has the API key that it was let in with."""

_IN_QUERY = "x_api_key"
"""The parameter that has the key, for clients that can set no header."""


def guarded(
    routes: Sequence[BaseRoute], authenticator: Authenticator, activity: ActivityLog
) -> list[BaseRoute]:
    """The same routes, each with its check before it. They must be this application's own.

    Requests for inference that are let in are told to `activity`: who has no right key cannot push others' rows out.
    """
    for route in routes:
        if not isinstance(route, Route | WebSocketRoute):
            raise TypeError(f"{route!r} is of a kind that has no check: nothing would ask it for a key")
        route.app = _Check(route, authenticator, activity)
    return list(routes)


def key_of(scope: Scope) -> ApiKey | None:
    """The API key that a request was let in with; None where none was needed."""
    found = scope.get("state", {}).get(_KEY)
    return found if isinstance(found, ApiKey) else None


def is_admin(scope: Scope) -> bool:
    """Whether a request may do what concerns everybody: with the scope `admin`, or where no keys are used."""
    key = key_of(scope)
    return key is None or KeyScope.ADMIN in key.scopes


class _Check:
    """The check of one route."""

    def __init__(
        self, route: Route | WebSocketRoute, authenticator: Authenticator, activity: ActivityLog
    ) -> None:
        operation = operation_of(route.endpoint)
        self._app: ASGIApp = route.app
        self._authenticator = authenticator
        self._activity = activity
        self._dialect = "" if operation is None else operation.group.name.lower()
        self._access = (operation and operation.scope) or Access.ADMIN
        self._reject = (operation and operation.reject) or _close
        self._in_query = isinstance(route, WebSocketRoute) or (
            operation is not None and operation.key_in_query
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._let_in(scope)
        except KolosalError as exc:
            if scope["type"] == "http":
                raise
            await self._reject(WebSocket(scope, receive, send), exc)
            return
        self._note(scope)
        await self._app(scope, receive, send)

    def _note(self, scope: Scope) -> None:
        """Say in the request's context whose it is."""
        context = REQUEST.get()
        if context is None:
            return
        context.dialect = self._dialect
        if (key := key_of(scope)) is not None:
            context.key_id, context.key_name = key.id, key.name
        if scope["type"] == "http" and self._access is Access.INFERENCE:
            self._activity.begin(context)

    def _let_in(self, scope: Scope) -> None:
        if self._access is Access.OPEN:
            return
        client = scope.get("client") or ("", 0)
        try:
            key = self._authenticator.identify(presented_keys(scope, in_query=self._in_query), str(client[0]))
        except KeyMissing as exc:
            exc.param = _IN_QUERY if self._in_query else None
            raise
        watch_admission(scope, partial(self._authenticator.still_admits, key))
        if key is None:
            return
        scope.setdefault("state", {})[_KEY] = key
        if self._access is not Access.ANY_KEY and KeyScope(self._access) not in key.scopes:
            has = " and ".join(f"'{scope}'" for scope in sorted(key.scopes))
            raise Forbidden(
                f"This needs an API key with the scope '{self._access}', and this key has {has} only",
                code="missing_scope",
            )


async def _close(websocket: WebSocket, _error: KolosalError) -> None:
    await websocket.close(WS_1008_POLICY_VIOLATION)


def presented_keys(scope: Scope, *, in_query: bool) -> tuple[str, ...]:
    """The API keys a request carries. Clients that are told a key in two ways send both, of which one may be stale."""
    headers = Headers(scope=scope)
    kind, _, credentials = headers.get("authorization", "").strip().partition(" ")
    found = [credentials.strip() if kind.lower() == "bearer" else "", headers.get("x-api-key", "").strip()]
    if in_query:
        found.append(QueryParams(scope.get("query_string", b"")).get(_IN_QUERY, ""))
    return tuple(dict.fromkeys(key for key in found if key))
