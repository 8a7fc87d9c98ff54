"""Engines in memory: load, unload, and what one would take. None of these adds or removes an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired

from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.memory.fit import Choice
from kolosal.engines.memory.load_scheduler import Preview
from kolosal.engines.memory.machine import Gpu
from kolosal.engines.memory.placement import DeviceMemory, Estimate
from kolosal.engines.memory.policy import Load, Refuse
from kolosal.engines.parameters import EngineConfig, EngineId, LoadingParameters
from kolosal.http.decode import decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.admin.engine_body import EngineBody, UnloadBody, config_of
from kolosal.routes.admin.engine_details import DeviceBytes, EngineDetails, device_bytes, engine_details
from kolosal.routes.common.engine_path import ENGINE
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.services import cluster_of, registry_of

UNLOAD_LIMIT_S = 30.0
"""How long running requests may take until an unload is given up, where the client does not say."""

_NO_NAME = "unnamed"
"""An engine that is only estimated needs no id."""


class BytesByPurpose(TypedDict):
    """Bytes on one device."""

    weights: int
    kv_cache: int
    compute: int
    process: int
    total: int
    mapped: NotRequired[int]
    """Of the host's: bytes of the file that are only mapped, and can be read again."""


class EngineBytes(TypedDict):
    """Bytes by device and by purpose, for a number of KV cells."""

    kv_pool_tokens: int
    host: BytesByPurpose
    gpus: dict[str, BytesByPurpose]


class HostMemory(TypedDict):
    """The host's memory, in bytes."""

    total: int
    free: int


class MachineBytes(TypedDict):
    """What there is."""

    host: HostMemory
    gpus: Sequence[Gpu]


class EngineEstimate(EngineBytes):
    """What an engine takes or would take."""

    engine_id: str
    model_path: str
    fits: bool
    """It could be loaded now."""
    can_fit: bool
    """It could be loaded once others are idle."""
    unloads: Sequence[str]
    """Engines that would be unloaded for it."""
    fit: Sequence[Choice]
    """What would be chosen of what is left automatic, and why."""
    loading_parameters: LoadingParameters
    """How it would be loaded."""
    least: EngineBytes
    """With the smallest KV cache that it works with."""
    free: DeviceBytes
    machine: MachineBytes


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/engines/estimate", estimate_body, methods=["POST"]),
        Route(f"{ENGINE}/estimate", estimate_engine),
        Route(f"{ENGINE}/load", load_engine, methods=["POST"]),
        Route(f"{ENGINE}/unload", unload_engine, methods=["POST"]),
        first="",
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="The engine, loaded.",
)
async def load_engine(request: Request) -> JsonResponse[EngineDetails]:
    """Load an engine now, and wait for that. All who ask meanwhile share one load; who leaves does not stop it."""
    registry = registry_of(request)
    engine_id = request.path_params["engine_id"]
    engine = await unless_disconnected(request, registry.load(engine_id))
    return JsonResponse(engine_details(registry, engine, cluster_of(request)))


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    body=UnloadBody,
    example={},
    answer="The engine, unloaded.",
)
async def unload_engine(request: Request) -> JsonResponse[EngineDetails]:
    """Free an engine's memory and keep its name: the next request loads it again. Running requests finish first."""
    registry = registry_of(request)
    body = await decode(request, UnloadBody) if (await request.body()).strip() else UnloadBody()
    limit_s = UNLOAD_LIMIT_S if body.timeout_s is None else body.timeout_s
    unloading = registry.unload(request.path_params["engine_id"], limit_s=limit_s)
    engine = await unless_disconnected(request, unloading)
    return JsonResponse(engine_details(registry, engine, cluster_of(request)))


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="Bytes by device and by purpose, what is free, and whether it fits.",
)
async def estimate_engine(request: Request) -> JsonResponse[EngineEstimate]:
    """What an engine takes, or would take if it were loaded now. Loads nothing."""
    registry = registry_of(request)
    engine = registry.get(request.path_params["engine_id"])
    return _response(engine.config, await registry.load_scheduler.preview(engine.config, engine))


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    body=EngineBody,
    example={"model_path": "/models/tiny.gguf", "n_ctx": 4096},
    answer="Bytes by device and by purpose, what is free, and whether it fits.",
)
async def estimate_body(request: Request) -> JsonResponse[EngineEstimate]:
    """What an engine would take, before it is added. Takes the body of `POST /engines`; adds and loads nothing."""
    body = await decode(request, EngineBody)
    config, _ = await config_of(request, body.model_copy(update={"engine_id": body.name or _NO_NAME}))
    return _response(config, await registry_of(request).load_scheduler.preview(config))


def _response(config: EngineConfig, preview: Preview) -> JsonResponse[EngineEstimate]:
    return JsonResponse(
        {
            "engine_id": config.engine_id,
            "model_path": config.model_path,
            "fits": isinstance(preview.decision, Load),
            "can_fit": not isinstance(preview.decision, Refuse),
            "unloads": preview.unloads,
            "fit": preview.plan.choices,
            "loading_parameters": preview.plan.parameters,
            **_engine_bytes(preview.plan.estimate),
            "least": _engine_bytes(preview.least),
            "free": device_bytes(preview.free),
            "machine": {
                "host": {"total": preview.memory.host_total, "free": preview.memory.host_free},
                "gpus": preview.memory.gpus,
            },
        }
    )


def _engine_bytes(estimate: Estimate) -> EngineBytes:
    return {
        "kv_pool_tokens": estimate.cells,
        "host": {**_by_purpose(estimate.host), "mapped": estimate.mapped},
        "gpus": {str(index): _by_purpose(part) for index, part in estimate.gpus.items()},
    }


def _by_purpose(part: DeviceMemory) -> BytesByPurpose:
    return {
        "weights": part.weights,
        "kv_cache": part.kv_cache,
        "compute": part.compute,
        "process": part.process,
        "total": part.total,
    }
