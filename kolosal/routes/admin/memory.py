"""Engines in memory: load, unload, and what one would take. None of these adds or removes an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kolosal.engines.memory.load_scheduler import Preview
from kolosal.engines.memory.placement import Estimate, Part
from kolosal.engines.memory.policy import Load, Refuse
from kolosal.engines.parameters import EngineConfig, EngineId
from kolosal.errors import InvalidRequest
from kolosal.http.decode import decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.paths import engine_config
from kolosal.routes.admin.answer_types import EngineDetails, EngineEstimate
from kolosal.routes.admin.engine_body import EngineBody, UnloadBody
from kolosal.routes.admin.engines import shown
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import model_roots_of, registry_of

_UNLOAD_LIMIT_S = 30.0
"""How long running requests may take until an unload is given up, where the client does not say."""

_NO_NAME = "unnamed"
"""An engine that is only estimated needs no id."""


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return [
        route
        for prefix in ("", "/v1")
        for route in (
            Route(f"{prefix}/engines/estimate", estimate_body, methods=["POST"]),
            Route(f"{prefix}/engines/{{engine_id}}/estimate", estimate_engine),
            Route(f"{prefix}/engines/{{engine_id}}/load", load_engine, methods=["POST"]),
            Route(f"{prefix}/engines/{{engine_id}}/unload", unload_engine, methods=["POST"]),
        )
    ]


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="The engine, loaded.",
    answer_type=EngineDetails,
)
async def load_engine(request: Request) -> Response:
    """Load an engine now, and wait for that. All who ask meanwhile share one load; who leaves does not stop it."""
    registry = registry_of(request)
    engine_id = request.path_params["engine_id"]
    engine = await unless_disconnected(request, registry.load(engine_id))
    return JsonResponse(shown(registry, engine))


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    body=UnloadBody,
    example={},
    answer="The engine, unloaded.",
    answer_type=EngineDetails,
)
async def unload_engine(request: Request) -> Response:
    """Free an engine's memory and keep its name: the next request loads it again. Running requests finish first."""
    registry = registry_of(request)
    body = await decode(request, UnloadBody) if (await request.body()).strip() else UnloadBody()
    limit_s = _UNLOAD_LIMIT_S if body.timeout_s is None else body.timeout_s
    unloading = registry.unload(request.path_params["engine_id"], limit_s=limit_s)
    engine = await unless_disconnected(request, unloading)
    return JsonResponse(shown(registry, engine))


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="Bytes by device and by purpose, what is free, and whether it fits.",
    answer_type=EngineEstimate,
)
async def estimate_engine(request: Request) -> Response:
    """What an engine takes, or would take if it were loaded now. Loads nothing."""
    registry = registry_of(request)
    config = registry.get(request.path_params["engine_id"]).config
    return _answer(config, await registry.preview(config))


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    body=EngineBody,
    example={"model_path": "/models/tiny.gguf", "n_ctx": 4096},
    answer="Bytes by device and by purpose, what is free, and whether it fits.",
    answer_type=EngineEstimate,
)
async def estimate_body(request: Request) -> Response:
    """What an engine would take, before it is added. Takes the body of `POST /engines`; adds and loads nothing."""
    body = await decode(request, EngineBody)
    if not body.model_path:
        raise InvalidRequest("Missing required field: model_path", param="model_path")
    name, parameters = body.name or _NO_NAME, body.parameters()
    roots = model_roots_of(request)
    config = await asyncio.to_thread(engine_config, name, body.model_path, parameters, roots=roots)
    return _answer(config, await registry_of(request).preview(config))


def _answer(config: EngineConfig, preview: Preview) -> JsonResponse[object]:
    best = preview.choices[0]
    return JsonResponse(
        {
            "engine_id": config.engine_id,
            "model_path": config.model_path,
            "fits": isinstance(preview.decision, Load),
            "can_fit": not isinstance(preview.decision, Refuse),
            "unloads": preview.unloads,
            "kv_pool_tokens": best.cells,
            **_devices(best),
            "least": {"kv_pool_tokens": preview.choices[-1].cells, **_devices(preview.choices[-1])},
            "free": {"host": max(0, preview.free.host), "gpus": _by_index(preview.free.gpus)},
            "machine": {
                "host": {"total": preview.memory.host_total, "free": preview.memory.host_free},
                "gpus": [asdict(gpu) for gpu in preview.memory.gpus],
            },
        }
    )


def _devices(estimate: Estimate) -> dict[str, Any]:
    host = _part(estimate.host) | {"mapped": estimate.mapped}
    return {"host": host, "gpus": {str(index): _part(part) for index, part in estimate.gpus.items()}}


def _part(part: Part) -> dict[str, int]:
    return asdict(part) | {"total": part.total}


def _by_index(amounts: Mapping[int, int]) -> dict[str, int]:
    return {str(index): max(0, n_bytes) for index, n_bytes in amounts.items()}
