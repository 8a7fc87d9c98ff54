"""Clients that leave, and clients that may not stay: no work goes on for a request that nobody waits for, or nobody may make.

uvicorn does not cancel a handler when its client closes the connection, so whoever waits for an engine waits for that too.
Who may ask is decided by `kolosal.security`; the check before each route leaves a question in the request's state, which is
asked again here as long as the request runs: streams and long waits end soon after their API key was taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from kolosal.errors import AuthenticationFailed

T = TypeVar("T")

ADMISSION_CHECK_S = 1.0
"""How often it is asked whether a request would still be let in."""

_STILL_ADMITTED = "still_admitted"


async def disconnected(receive: Receive) -> None:
    """Return when the client has left. To be called after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves first, or may not stay.

    Raises:
        ClientDisconnect: the client left. No answer is needed.
        AuthenticationFailed: as `unless_revoked`.
    """
    task = asyncio.create_task(unless_revoked(request.scope, work))
    watch = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        await end_tasks(task, watch)


def watch_admission(scope: Scope, still_admitted: Callable[[], bool]) -> None:
    """Have a request end when this says that it would not be let in any more."""
    scope.setdefault("state", {})[_STILL_ADMITTED] = still_admitted


async def unless_revoked(scope: Scope, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the request would not be let in any more.

    Raises:
        AuthenticationFailed: it would not.
    """
    still_admitted: Callable[[], bool] | None = scope.get("state", {}).get(_STILL_ADMITTED)
    if still_admitted is None:
        return await work
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait((task,), timeout=ADMISSION_CHECK_S))[0]:
            if not still_admitted():
                raise AuthenticationFailed("The API key was taken back while the request ran")
        return task.result()
    finally:
        await end_tasks(task)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended; what they raised was seen, or is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
