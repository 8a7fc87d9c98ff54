"""Engine management: add, list, look at, replace and remove engines. Listing loads nothing and resets no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.downloads.download import EngineWish
from kolosal.downloads.source import is_source
from kolosal.engines.engine import Engine
from kolosal.engines.memory.fit import Choice
from kolosal.engines.parameters import LLAMACPP, EngineConfig, EngineId, LoadingParameters
from kolosal.engines.state import EngineState
from kolosal.errors import Forbidden, InvalidRequest, LoadFailed
from kolosal.http.decode import decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.admin.downloads import expect_free
from kolosal.routes.admin.engine_body import EngineBody, RulesBody, config_of
from kolosal.routes.admin.engine_details import (
    EngineDetails,
    EngineRow,
    EngineStatus,
    engine_details,
    engine_fit,
    engine_row,
    engine_status,
    engine_warnings,
    resolved_parameters,
)
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.engine_path import ENGINE, MODEL, checked_name
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import cluster_of, downloads_of, registry_of

_MESSAGES = {
    EngineState.READY: "Engine is loaded and ready",
    EngineState.LOADING: "Engine is loading",
    EngineState.UNLOADING: "Engine is being unloaded",
    EngineState.UNLOADED: "Engine exists but is currently unloaded",
    EngineState.CLOSED: "Engine is being removed",
}


class EnginesQuery(BaseModel):
    """What to say of which engines."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    details: bool = False
    """True: all about each, as `GET /engines/{engine_id}` says it, which needs the scope `admin`."""
    resident: bool = False
    """True: only those that have a process."""


class EngineList(TypedDict):
    """All engines."""

    engines: list[EngineRow] | list[EngineDetails]
    total_count: int


class EngineAdded(TypedDict):
    """An engine as it was added."""

    engine_id: str
    model_path: str
    backend: str
    """What generates."""
    status: Literal["loaded", "created"]
    load_immediately: bool
    loading_parameters: LoadingParameters
    """What the worker really got once the model was loaded, before that what was asked for."""
    main_gpu_id: int | Literal["auto"]
    fit: Sequence[Choice]
    """What was chosen of what was left automatic, and why; empty until it is loaded."""
    warnings: list[str]
    """What its owner should know, such as a window beyond what the model was trained for; empty until it is loaded."""
    message: str


class EngineFetched(TypedDict):
    """An engine whose model is fetched first."""

    engine_id: str
    model_path: str
    """The name that it is fetched by, complete."""
    status: Literal["downloading"]
    download_id: str
    local_path: str
    load_immediately: bool
    message: str


class EngineAvailability(EngineStatus):
    """An engine's status, also as a sentence."""

    available: bool
    message: str


class EngineRemoved(TypedDict):
    """What became of an engine."""

    engine_id: str
    status: Literal["removed"]
    message: str
    in_flight: int
    """Generations that still run; the memory is free when they have finished."""


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/engines", add_engine, methods=["POST"]),
        Route("/engines", list_engines),
        Route(ENGINE, show_engine),
        Route(ENGINE, put_engine, methods=["PUT"]),
        Route(ENGINE, change_engine, methods=["PATCH"]),
        Route(ENGINE, remove_engine, methods=["DELETE"]),
        Route(f"{ENGINE}/status", show_status),
        # the names that later versions of the first server have for these
        Route("/models", add_engine, methods=["POST"]),
        Route(MODEL, remove_engine, methods=["DELETE"]),
        Route(f"{MODEL}/status", show_status),
        first="",
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    body=EngineBody,
    more=LoadingParameters,
    example={"engine_id": "tiny", "model_path": "/models/tiny.gguf", "n_ctx": 4096, "n_gpu_layers": 0},
    status=201,
    answer="The engine as it was added, with all loading parameters; 202 where its model is fetched first.",
)
async def add_engine(request: Request) -> JsonResponse[EngineAdded] | JsonResponse[EngineFetched]:
    """Register an engine and, unless told not to, load it. A client that leaves before its answer leaves no engine.

    Where `model_path` names a model to fetch, as `hf.co/ORG/REPO:QUANT` or an `https://` URL, the engine is added when that is there.
    """
    body = await decode(request, EngineBody)
    if body.backend in (None, LLAMACPP) and is_source(body.model_path or ""):
        return await _fetched_first(request, body, body.model_path or "")
    config, model_path = await config_of(request, body)
    adding = registry_of(request).add(config, load=body.load, rules=body.rules, keep=True)
    engine = await _loaded(request, adding, config, model_path)
    return _added(engine, body, model_path)


async def _fetched_first(request: Request, body: EngineBody, model_path: str) -> JsonResponse[EngineFetched]:
    engine_id, _, parameters = body.required()
    wish = EngineWish(engine_id, parameters, body.rules, body.load, body.given)
    expect_free(request, wish.engine_id)
    downloads = downloads_of(request)
    planned = await unless_disconnected(request, downloads.plan(model_path))
    download = downloads.begin(planned, wish)
    return JsonResponse(
        {
            "engine_id": wish.engine_id,
            "model_path": download.plan.source,
            "status": "downloading",
            "download_id": download.id,
            "local_path": download.plan.model_path,
            "load_immediately": wish.load,
            "message": f"The engine is added when its model is there: see /downloads/{download.id}",
        },
        202,
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    body=EngineBody,
    example={"model_path": "/models/tiny.gguf", "n_ctx": 8192},
    answer="The engine as it is now, with all loading parameters; 201 where there was none of that name.",
)
async def put_engine(request: Request) -> JsonResponse[EngineAdded]:
    """Replace an engine without a gap, or add it where there is none.

    The new one loads first where memory allows that, takes over, and the old one ends after its last answer. Where it
    cannot be loaded the old one goes on serving.
    """
    registry = registry_of(request)
    body = await decode(request, EngineBody)
    engine_id = request.path_params["engine_id"]
    if body.name is not None and body.name != engine_id:
        raise InvalidRequest(
            f"engine_id must be the one of the path, {engine_id!r}, or left out, not {body.name!r}",
            param="engine_id",
        )
    body = body.model_copy(update={"engine_id": checked_name(engine_id)})
    config, model_path = await config_of(request, body)
    is_new = all(engine.engine_id != config.engine_id for engine in registry.list())
    putting = (registry.add if is_new else registry.replace)(
        config, load=body.load, rules=body.rules, keep=True
    )
    engine = await _loaded(request, putting, config, model_path)
    return _added(engine, body, model_path, replaced=not is_new)


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    body=RulesBody,
    example={"pin": True},
    answer="The engine as it is now.",
)
async def change_engine(request: Request) -> JsonResponse[EngineDetails]:
    """Pin an engine, or change how long it stays idle in memory and how many requests may wait. Nothing is loaded again."""
    body = await decode(request, RulesBody)
    registry = registry_of(request)
    engine = _engine(request)
    registry.set_rules(engine.engine_id, body.changed(engine.rules))
    return JsonResponse(engine_details(registry, engine, cluster_of(request)))


async def _loaded(
    request: Request, work: Coroutine[Any, Any, Engine], config: EngineConfig, model_path: str
) -> Engine:
    """The engine that `work` gives. A model that cannot be loaded is told with the numbers it was loaded with."""
    try:
        return await unless_disconnected(request, work)
    except LoadFailed as exc:
        details = {"engine_id": config.engine_id, "model_path": model_path}
        names = ("n_ctx", "n_gpu_layers", "main_gpu_id")
        numbers = {name: getattr(config.parameters, name) for name in names}
        raise LoadFailed(
            exc.message, param=exc.param or "model_path", details={**details, **numbers}
        ) from exc


def _added(
    engine: Engine, body: EngineBody, model_path: str, *, replaced: bool = False
) -> JsonResponse[EngineAdded]:
    return JsonResponse(
        {
            "engine_id": engine.engine_id,
            "model_path": model_path,
            "backend": engine.config.backend,
            "status": "loaded" if body.load else "created",
            "load_immediately": body.load,
            "loading_parameters": resolved_parameters(engine),
            "main_gpu_id": resolved_parameters(engine).main_gpu_id,
            "fit": engine_fit(engine),
            "warnings": engine_warnings(engine),
            "message": f"Engine {'replaced' if replaced else 'added'} successfully",
        },
        status=200 if replaced else 201,
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ANY_KEY,
    query=EnginesQuery,
    answer="`engines`, each with its status, and `total_count`.",
)
async def list_engines(request: Request) -> JsonResponse[EngineList]:
    """All engines."""
    query = read_query(request, EnginesQuery)
    registry = registry_of(request)
    engines = registry.list()
    chosen = [each for each in engines if not query.resident or each.state is not EngineState.UNLOADED]
    if not query.details:
        return JsonResponse({"engines": [engine_row(each) for each in chosen], "total_count": len(engines)})
    if not is_admin(request.scope):
        raise Forbidden("details need an API key with the scope 'admin'", code="missing_scope")
    cluster = cluster_of(request)
    details = [engine_details(registry, each, cluster) for each in chosen]
    return JsonResponse({"engines": details, "total_count": len(engines)})


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="The engine: state, loading parameters, facts about the model, load.",
)
async def show_engine(request: Request) -> JsonResponse[EngineDetails]:
    """Everything there is to know about one engine."""
    return JsonResponse(engine_details(registry_of(request), _engine(request), cluster_of(request)))


@Operation(
    group=Group.ENGINES,
    scope=Access.ANY_KEY,
    path={"engine_id": EngineId},
    answer="The engine's status, in a word and in a sentence.",
)
async def show_status(request: Request) -> JsonResponse[EngineAvailability]:
    """Whether an engine is loaded."""
    engine = _engine(request)
    return JsonResponse({**engine_status(engine), "available": True, "message": _MESSAGES[engine.state]})


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="Which engine was removed, and how many of its generations still run.",
)
async def remove_engine(request: Request) -> JsonResponse[EngineRemoved]:
    """Free the name at once. Running generations finish; with none, the answer comes when the memory is free."""
    engine = _engine(request)
    in_flight = engine.in_flight
    ended = registry_of(request).remove(engine.engine_id)
    if not in_flight:
        await asyncio.shield(ended)
    return JsonResponse(
        {
            "engine_id": engine.engine_id,
            "status": "removed",
            "message": "Engine removed successfully",
            "in_flight": in_flight,
        }
    )


def _engine(request: Request) -> Engine:
    name = request.path_params.get("engine_id") or request.path_params["model"]  # as the path calls it
    return registry_of(request).get(name)
