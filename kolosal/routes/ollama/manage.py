"""Changing what models there are: `/api/copy`, `/api/delete`, and what this daemon does not have."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from kolosal.engines.parameters import EngineId
from kolosal.http.decode import RequestBody
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.ollama.errors import OllamaError
from kolosal.routes.ollama.names import (
    NamedModelBody,
    OllamaModelName,
    decode_ollama,
    find_engine,
    without_latest,
)


class CopyBody(RequestBody):
    """A second name for a model."""

    source: Annotated[OllamaModelName, Field(min_length=1)]
    """An `engine_id`, perhaps with `:latest`."""
    destination: EngineId
    """The id of the new engine; `:latest` is cut off."""


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    body=CopyBody,
    example={"source": "tiny", "destination": "tiny-two"},
    answer="Nothing.",
    media_type="text/plain",
)
async def copy(request: Request) -> PlainTextResponse:
    """Add an engine with the model file and the parameters of another. It is loaded when it is first used."""
    body = await decode_ollama(request, CopyBody)
    registry = registry_of(request)
    config = find_engine(registry, body.source).config
    await registry.add(replace(config, engine_id=without_latest(body.destination)), load=False)
    return PlainTextResponse("")


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    body=NamedModelBody,
    example={"model": "tiny"},
    answer="Nothing.",
    media_type="text/plain",
)
async def delete(request: Request) -> PlainTextResponse:
    """Remove an engine. Running answers finish; the model file stays where it is."""
    body = await decode_ollama(request, NamedModelBody)
    registry = registry_of(request)
    engine = body.engine(registry)
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
