"""Engine management: add, list, look at, replace and remove engines. Listing loads nothing and resets no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.parameters import EngineConfig, EngineId, LoadingParameters
from kolosal.engines.state import EngineState
from kolosal.errors import InvalidRequest, LoadFailed
from kolosal.http.decode import complaint, decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.paths import engine_config
from kolosal.routes.admin.engine_body import EngineBody
from kolosal.routes.admin.engine_details import (
    EngineDetails,
    EngineRow,
    EngineStatus,
    engine_details,
    engine_row,
    engine_status,
    resolved_parameters,
)
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.services import model_roots_of, registry_of

_engine_id: TypeAdapter[str] = TypeAdapter(EngineId)

_MESSAGES = {
    EngineState.READY: "Engine is loaded and ready",
    EngineState.LOADING: "Engine is loading",
    EngineState.UNLOADING: "Engine is being unloaded",
    EngineState.UNLOADED: "Engine exists but is currently unloaded",
    EngineState.CLOSED: "Engine is being removed",
}


class EngineList(TypedDict):
    """All engines."""

    engines: list[EngineRow]
    total_count: int


class EngineAdded(TypedDict):
    """An engine as it was added."""

    engine_id: str
    model_path: str
    status: Literal["loaded", "created"]
    load_immediately: bool
    loading_parameters: LoadingParameters
    """What the worker really got once the model was loaded, before that what was asked for."""
    main_gpu_id: int
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
        Route("/engines/{engine_id}", show_engine),
        Route("/engines/{engine_id}", put_engine, methods=["PUT"]),
        Route("/engines/{engine_id}", remove_engine, methods=["DELETE"]),
        Route("/engines/{engine_id}/status", show_status),
        first="",
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    body=EngineBody,
    more=LoadingParameters,
    example={"engine_id": "tiny", "model_path": "/models/tiny.gguf", "n_ctx": 4096, "n_gpu_layers": 0},
    status=201,
    answer="The engine as it was added, with all loading parameters.",
)
async def add_engine(request: Request) -> JsonResponse[EngineAdded]:
    """Register an engine and, unless told not to, load it. A client that leaves before its answer leaves no engine."""
    body = await decode(request, EngineBody)
    engine_id, model_path, parameters = body.required()
    roots = model_roots_of(request)
    config = await asyncio.to_thread(engine_config, engine_id, model_path, parameters, roots=roots)
    adding = registry_of(request).add(config, load=body.load, rules=body.rules, keep=True)
    engine = await _loaded(request, adding, config, model_path)
    return _added(engine, body, model_path)


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
    body = body.model_copy(update={"engine_id": _checked_id(engine_id)})
    engine_id, model_path, parameters = body.required()
    roots = model_roots_of(request)
    config = await asyncio.to_thread(engine_config, engine_id, model_path, parameters, roots=roots)
    is_new = all(engine.engine_id != engine_id for engine in registry.list())
    putting = (registry.add if is_new else registry.replace)(
        config, load=body.load, rules=body.rules, keep=True
    )
    engine = await _loaded(request, putting, config, model_path)
    return _added(engine, body, model_path, replaced=not is_new)


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
        raise LoadFailed(exc.message, param="model_path", details={**details, **numbers}) from exc


def _added(
    engine: Engine, body: EngineBody, model_path: str, *, replaced: bool = False
) -> JsonResponse[EngineAdded]:
    return JsonResponse(
        {
            "engine_id": engine.engine_id,
            "model_path": model_path,
            "status": "loaded" if body.load else "created",
            "load_immediately": body.load,
            "loading_parameters": resolved_parameters(engine),
            "main_gpu_id": engine.config.parameters.main_gpu_id,
            "message": f"Engine {'replaced' if replaced else 'added'} successfully",
        },
        status=200 if replaced else 201,
    )


def _checked_id(engine_id: str) -> str:
    """A name out of a path, which may hold what no name may."""
    try:
        return _engine_id.validate_python(engine_id)
    except ValidationError as exc:
        raise complaint(exc.errors(include_url=False)[0], "engine_id") from None


@Operation(
    group=Group.ENGINES,
    scope=Access.ANY_KEY,
    answer="`engines`, each with its status, and `total_count`.",
)
async def list_engines(request: Request) -> JsonResponse[EngineList]:
    """All engines."""
    rows = [engine_row(engine) for engine in registry_of(request).list()]
    return JsonResponse({"engines": rows, "total_count": len(rows)})


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="The engine: state, loading parameters, facts about the model, load.",
)
async def show_engine(request: Request) -> JsonResponse[EngineDetails]:
    """Everything there is to know about one engine."""
    return JsonResponse(engine_details(registry_of(request), _engine(request)))


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
    return registry_of(request).get(request.path_params["engine_id"])
