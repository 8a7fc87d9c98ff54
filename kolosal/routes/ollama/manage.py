"""Removing models, and what this daemon does not have."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from kolosal.http.responses import JsonResponse
from kolosal.routes.common.model_settings import forget_name
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.removal import remove_model
from kolosal.routes.common.services import services_of
from kolosal.routes.ollama.errors import OllamaError
from kolosal.routes.ollama.names import (
    NamedModelBody,
    decode_ollama,
    not_found,
)


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    body=NamedModelBody,
    example={"model": "tiny"},
    answer="Nothing.",
    media_type="text/plain",
)
async def delete(request: Request) -> PlainTextResponse:
    """Remove a name that `models.yaml` has, or an engine that somebody added: the model file stays where it is. Else remove a model of the library, file and all.

    Running answers finish.
    """
    body = await decode_ollama(request, NamedModelBody)
    services = services_of(request)
    if await forget_name(services, body.model or body.name or ""):
        return PlainTextResponse("")
    registry, name = services.registry, body.checked_name(services.registry)
    engine = registry.find(name)
    model = await services.library.look_up(name) if engine is None or engine.from_library else None
    if model is not None:
        await remove_model(services, model)
        return PlainTextResponse("")
    if engine is None:
        raise not_found(registry, name)
    in_flight = engine.in_flight
    ended = registry.remove(engine.engine_id)
    if not in_flight:
        await asyncio.shield(ended)
    return PlainTextResponse("")


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    answer="That this daemon does not have it.",
    status=501,
)
async def not_here(request: Request) -> JsonResponse[OllamaError]:
    """Models are not fetched, made or stored by this daemon: their files are on its disk, and `POST /engines` adds them."""
    path = request.url.path[:100]
    return JsonResponse(
        {"error": f"{path} is not supported by this server: add model files on its disk with POST /engines"},
        501,
    )
