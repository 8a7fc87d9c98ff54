"""Unary calls: what routes have engines do besides generating, one answer each. See `engines/ipc/calls.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias, TypeVar

from pydantic import Field
from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import MAX_TEXT_CHARS, Call, CallResult, Render, Rendered
from kolosal.errors import InternalError, InvalidRequest
from kolosal.http.disconnect import unless_disconnected
from kolosal.routes.common.generation import within
from kolosal.routes.common.services import place_of, registry_of, services_of
from kolosal.schema import ChatPrompt

MAX_MODEL_CHARS = 256
"""As long as the id of an engine can be."""

MAX_TOKEN_ID = 2**31 - 1
"""llama.cpp's tokens are 32-bit integers. Whether the model has such a token its engine knows."""

MAX_CALL_CHARS = 1_048_576
"""Characters, or tokens, of one call: more is sent in several, so that each fits into a frame."""

ModelName: TypeAlias = Annotated[str, Field(max_length=MAX_MODEL_CHARS)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Text: TypeAlias = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]

T = TypeVar("T")
R = TypeVar("R", bound=CallResult)


def optional_model(request: Request, model: str | None) -> str | None:
    """The engine of a request that may leave out its name: the default engine, else the only one.

    Raises:
        InvalidRequest: it left it out, and there are several.
    """
    registry = registry_of(request)
    if not model and registry.default_engine is None and len(registry.list()) > 1:
        raise InvalidRequest("model is missing: there are several engines and no default one", param="model")
    return model or None


async def with_engine(request: Request, model: str | None, work: Callable[[Engine], Awaitable[T]]) -> T:
    """The result of `work` on the engine of that name, loaded first if need be; given up when the client leaves.

    Raises:
        KolosalError: there is no such engine, it cannot be loaded in time or is full, or it refused.
        ClientDisconnect: the client left.
    """
    services = services_of(request)

    async def run() -> T:
        loaded = services.registry.acquire(model)
        return await work(await within(services.settings.server.queue_timeout_s, loaded))

    place = place_of(request)
    try:
        return await unless_disconnected(request, run())
    finally:
        place.leave()


async def count_prompt_tokens(request: Request, model: str | None, prompt: ChatPrompt) -> int:
    """How many tokens a conversation has as the engine's template writes it.

    Raises:
        KolosalError: as `with_engine`.
        ClientDisconnect: the client left.
    """
    return (await call_model(request, model, Render(prompt), Rendered)).n_tokens


async def call_model(request: Request, model: str | None, call: Call, kind: type[R]) -> R:
    """The result of a call to the engine of that name. Raises as `with_engine`."""
    return await with_engine(request, model, lambda engine: unary_call(engine, call, kind))


async def unary_call(engine: Engine, call: Call, kind: type[R]) -> R:
    """The result of a call, of the kind that belongs to it.

    Raises:
        KolosalError: as `Engine.call`.
    """
    result = await engine.call(call)
    if not isinstance(result, kind):
        raise InternalError
    return result
