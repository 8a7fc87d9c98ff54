"""llama-server's ways to have models loaded and unloaded, and to follow that: `POST /models/load`, `/models/unload`, `GET /models/sse`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.http.decode import RequestBody, decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.observe.events import Event
from kolosal.observe.ring import Ring
from kolosal.routes.admin.memory import UNLOAD_LIMIT_S
from kolosal.routes.common.fields import ModelName
from kolosal.routes.common.journal_stream import journal_stream
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import registry_of, services_of
from kolosal.routes.openai.models import load_progress


class ModelToLoad(RequestBody):
    """A model by its name."""

    model: Annotated[ModelName, Field(min_length=1)]
    """An `engine_id`, or the name of a model in the library."""


class ModelEventsQuery(BaseModel):
    """How long to listen."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    follow: bool = True
    """False: what was lately, and then the end."""


class Success(TypedDict):
    """That it was done, or begun."""

    success: bool


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/models/load", load_model, methods=["POST"]),
        Route("/models/unload", unload_model, methods=["POST"]),
        Route("/models/sse", follow_models),
        first="",
    )


@Operation(
    group=Group.TEXT,
    scope=Access.ADMIN,
    body=ModelToLoad,
    example={"model": "tiny"},
    answer="`success`: true once the load has begun; `GET /models` and `/models/sse` say how it goes on.",
)
async def load_model(request: Request) -> JsonResponse[Success]:
    """Begin to load a model, which may be one of the library. One that is loaded stays so."""
    body = await decode(request, ModelToLoad)
    services = services_of(request)
    engine = await services.registry.resolve(body.model)
    services.in_background(services.registry.load(engine.engine_id))
    return JsonResponse({"success": True})


@Operation(
    group=Group.TEXT,
    scope=Access.ADMIN,
    body=ModelToLoad,
    example={"model": "tiny"},
    answer="`success`: true once its memory is free.",
)
async def unload_model(request: Request) -> JsonResponse[Success]:
    """Free a model's memory, after its running answers; its next request loads it again. One that is not loaded stays so."""
    body = await decode(request, ModelToLoad)
    registry = registry_of(request)
    engine = await registry.resolve(body.model)
    await unless_disconnected(request, registry.unload(engine.engine_id, limit_s=UNLOAD_LIMIT_S))
    return JsonResponse({"success": True})


@Operation(
    group=Group.TEXT,
    scope=Access.ANY_KEY,
    query=ModelEventsQuery,
    answer="`model_status` with `status` and `progress`, `model_remove`, and `models_reload` where the library is other.",
    media_type="text/event-stream",
)
async def follow_models(request: Request) -> EventStream | PlainTextResponse:
    """Which models are loaded and unloaded, as it happens. Ends when the daemon stops."""
    ring = registry_of(request).observer.events.ring
    follow = read_query(request, ModelEventsQuery).follow
    return journal_stream(request, _frames(ring, ring.newest if follow else 0, follow=follow))


async def _frames(ring: Ring[Event], after: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
    if not follow:
        yield b"".join(map(_frame, ring.after(after, ring.newest or 1).items))
        return
    async for batch in ring.follow(after, 0.0):
        if content := b"".join(map(_frame, batch.items)):
            yield content


def _frame(event: Event) -> bytes:
    """What llama-server says of an event; nothing of one that it does not know."""
    name = event.data.get("engine_id")
    said: dict[str, object]
    match event.kind, event.data:
        case "library.changed", _:
            return _data({"model": "*", "event": "models_reload"})
        case "engine.removed", _:
            return _data({"model": name, "event": "model_remove"})
        case "engine.progress", {"progress": float() as fraction}:
            said = {"status": "loading", "progress": load_progress(fraction)}
        case "engine.state", {"state": "ready"}:
            said = {"status": "loaded"}
        case "engine.state", {"state": "loading"}:
            said = {"status": "loading"}
        case "engine.state", {"state": "unloaded", "reason": str() as reason}:
            said = {"status": "failed", "failed": True, "reason": reason}
        case "engine.state", {"state": "unloaded"}:
            said = {"status": "unloaded"}
        case _:
            return b""
    return _data({"model": name, "event": "model_status", "data": said})


def _data(value: Mapping[str, object]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
