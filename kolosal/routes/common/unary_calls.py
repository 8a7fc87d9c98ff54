"""Unary calls: what routes have engines do besides generating, one answer each. See `engines/ipc/calls.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Call, CallResult, Render, Rendered
from kolosal.errors import InternalError
from kolosal.http.disconnect import unless_disconnected
from kolosal.routes.common.generation import within
from kolosal.routes.common.services import caller_of
from kolosal.schema import ChatPrompt

MAX_CALL_CHARS = 1_048_576
"""Characters, or tokens, of one call: more is sent in several, so that each fits into a frame."""

T = TypeVar("T")
R = TypeVar("R", bound=CallResult)


async def with_engine(request: Request, model: str | None, work: Callable[[Engine], Awaitable[T]]) -> T:
    """The result of `work` on the engine of that name, loaded first if need be; given up when the client leaves.

    Raises:
        KolosalError: there is no such engine, it cannot be loaded in time or is full, or it refused.
        ClientDisconnect: the client left.
    """
    caller = caller_of(request)
    services = caller.services

    async def run() -> T:
        loaded = services.registry.acquire(model)
        return await work(await within(services.settings.server.queue_timeout_s, loaded))

    place = caller.place()
    try:
        return await unless_disconnected(request, run())
    finally:
        place.leave()


async def count_prompt_tokens(request: Request, model: str | None, prompt: ChatPrompt) -> int:
    """How many tokens a conversation has as the engine's template writes it."""
    return (await call_model(request, model, Render(prompt), Rendered)).n_tokens


async def call_model(request: Request, model: str | None, call: Call, kind: type[R]) -> R:
    """The result of a call to the engine of that name. Raises as `with_engine`."""
    return await with_engine(request, model, lambda engine: unary_call(engine, call, kind))


async def unary_call(engine: Engine, call: Call, kind: type[R]) -> R:
    """The result of a call, of the kind that belongs to it."""
    result = await engine.call(call)
    if not isinstance(result, kind):
        raise InternalError
    return result
