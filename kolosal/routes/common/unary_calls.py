"""Unary calls: what routes have engines do besides generating, one answer each. See `engines/ipc/calls.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Call, CallResult, Render, Rendered
from kolosal.engines.unary import unary_call
from kolosal.http.disconnect import unless_disconnected
from kolosal.models.defaults import with_turns
from kolosal.routes.common.generation import within
from kolosal.routes.common.services import caller_of
from kolosal.schema import ChatPrompt

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
        engine = await within(services.settings.server.queue_timeout_s, loaded)
        result = await work(engine)
        said = caller.model(model, engine)
        if said is not None and said.keep_alive_s is not None:
            engine.keep_alive(said.keep_alive_s, unless_said=True)
        return result

    place = caller.place()
    try:
        return await unless_disconnected(request, run())
    finally:
        place.leave()


async def count_prompt_tokens(request: Request, model: str | None, prompt: ChatPrompt) -> int:
    """How many tokens a conversation has as the engine's template writes it."""
    return (await render(request, model, prompt)).n_tokens


async def render(request: Request, model: str | None, prompt: ChatPrompt) -> Rendered:
    """A conversation as the engine's template writes it, with what is said of the model."""
    whole = with_turns(prompt, caller_of(request).model(model))
    return await call_model(request, model, Render(whole), Rendered)


async def call_model(request: Request, model: str | None, call: Call, kind: type[R]) -> R:
    """The result of a call to the engine of that name. Raises as `with_engine`."""
    return await with_engine(request, model, lambda engine: unary_call(engine, call, kind))
