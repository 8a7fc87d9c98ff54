"""Engine management: add, list, look at, replace and remove engines. Listing loads nothing and resets no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kolosal.engines.engine import Engine, EngineState
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.parameters import EngineConfig, EngineId, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import InvalidRequest, LoadFailed
from kolosal.http.decode import complaint, decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.paths import engine_config
from kolosal.routes.admin.answer_types import (
    EngineAdded,
    EngineDetails,
    EngineList,
    EngineRemoved,
    EngineSays,
)
from kolosal.routes.admin.engine_body import EngineBody, resolved_parameters
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import model_roots_of, registry_of

_engine_id: TypeAdapter[str] = TypeAdapter(EngineId)

_MESSAGES = {
    EngineState.READY: "Engine is loaded and ready",
    EngineState.LOADING: "Engine is loading",
    EngineState.UNLOADING: "Engine is being unloaded",
    EngineState.UNLOADED: "Engine exists but is currently unloaded",
    EngineState.CLOSED: "Engine is being removed",
}


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return [
        route
        for prefix in ("", "/v1")
        for route in (
            Route(f"{prefix}/engines", add_engine, methods=["POST"]),
            Route(f"{prefix}/engines", list_engines),
            Route(f"{prefix}/engines/{{engine_id}}", show_engine),
            Route(f"{prefix}/engines/{{engine_id}}", put_engine, methods=["PUT"]),
            Route(f"{prefix}/engines/{{engine_id}}", remove_engine, methods=["DELETE"]),
            Route(f"{prefix}/engines/{{engine_id}}/status", show_status),
        )
    ]


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    body=EngineBody,
    more=LoadingParameters,
    example={"engine_id": "tiny", "model_path": "/models/tiny.gguf", "n_ctx": 4096, "n_gpu_layers": 0},
    status=201,
    answer="The engine as it was added, with all loading parameters.",
    answer_type=EngineAdded,
)
async def add_engine(request: Request) -> Response:
    """Register an engine and, unless told not to, load it. A client that leaves before its answer leaves no engine."""
    body = await decode(request, EngineBody)
    engine_id, model_path, parameters = body.required()
    roots = model_roots_of(request)
    config = await asyncio.to_thread(engine_config, engine_id, model_path, parameters, roots=roots)
    adding = registry_of(request).add(config, load=body.load, rules=body.rules, keep=True)
    engine = await _loaded(request, adding, config, model_path)
    return _added(engine, body, model_path, "Engine added successfully", status=201)


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    body=EngineBody,
    example={"model_path": "/models/tiny.gguf", "n_ctx": 8192},
    answer="The engine as it is now, with all loading parameters; 201 where there was none of that name.",
    answer_type=EngineAdded,
)
async def put_engine(request: Request) -> Response:
    """Replace an engine without a gap, or add it where there is none.

    The new one loads first where memory allows that, takes over, and the old one ends after its last answer. Where it
    cannot be loaded the old one goes on serving.
    """
    registry = registry_of(request)
    given = await decode(request, EngineBody)
    engine_id = request.path_params["engine_id"]
    if given.name is not None and given.name != engine_id:
        raise InvalidRequest(
            f"engine_id must be the one of the path, {engine_id!r}, or left out, not {given.name!r}",
            param="engine_id",
        )
    body = given.model_copy(update={"engine_id": _checked_id(engine_id)})
    engine_id, model_path, parameters = body.required()
    roots = model_roots_of(request)
    config = await asyncio.to_thread(engine_config, engine_id, model_path, parameters, roots=roots)
    is_new = all(engine.engine_id != engine_id for engine in registry.list())
    putting = (registry.add if is_new else registry.replace)(
        config, load=body.load, rules=body.rules, keep=True
    )
    engine = await _loaded(request, putting, config, model_path)
    if is_new:
        return _added(engine, body, model_path, "Engine added successfully", status=201)
    return _added(engine, body, model_path, "Engine replaced successfully", status=200)


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
    engine: Engine, body: EngineBody, model_path: str, message: str, *, status: int
) -> JsonResponse[object]:
    return JsonResponse(
        {
            "engine_id": engine.engine_id,
            "model_path": model_path,
            "status": "loaded" if body.load else "created",
            "load_immediately": body.load,
            "loading_parameters": resolved_parameters(engine),
            "main_gpu_id": engine.config.parameters.main_gpu_id,
            "message": message,
        },
        status=status,
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
    answer_type=EngineList,
)
async def list_engines(request: Request) -> Response:
    """All engines."""
    engines = registry_of(request).list()
    rows = [
        {"engine_id": e.engine_id, "status": status_word(e), "last_accessed": _last_accessed(e)}
        for e in engines
    ]
    return JsonResponse({"engines": rows, "total_count": len(rows)})


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="The engine: state, loading parameters, facts about the model, load.",
    answer_type=EngineDetails,
)
async def show_engine(request: Request) -> Response:
    """Everything there is to know about one engine."""
    return JsonResponse(shown(registry_of(request), _engine(request)))


@Operation(
    group=Group.ENGINES,
    scope=Access.ANY_KEY,
    path={"engine_id": EngineId},
    answer="The engine's status, in a word and in a sentence.",
    answer_type=EngineSays,
)
async def show_status(request: Request) -> Response:
    """Whether an engine is loaded."""
    engine = _engine(request)
    return JsonResponse(
        {
            "engine_id": engine.engine_id,
            "status": status_word(engine),
            "available": True,
            "message": _MESSAGES[engine.state],
        }
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    answer="Which engine was removed, and how many of its generations still run.",
    answer_type=EngineRemoved,
)
async def remove_engine(request: Request) -> Response:
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


def shown(registry: EngineRegistry, engine: Engine) -> dict[str, Any]:
    """All about one engine, as its routes answer."""
    held = registry.load_scheduler.estimate_of(engine)
    default_ttl_s = registry.load_scheduler.settings.idle_ttl_s
    return {
        "engine_id": engine.engine_id,
        "status": status_word(engine),
        "state": engine.state,
        "model_path": engine.config.model_path,
        "loading_parameters": resolved_parameters(engine),
        "main_gpu_id": engine.config.parameters.main_gpu_id,
        "info": engine.info,
        "load_progress": engine.load_progress,
        "last_error": engine.last_error,
        "recent_crashes": engine.recent_deaths,
        "breaker": engine.breaker,
        "retry_after_s": engine.retry_after_s,
        "last_accessed": _last_accessed(engine),
        "in_flight": engine.in_flight,
        "worker_pid": engine.worker_pid,
        "pin": engine.rules.pin,
        "idle_ttl_s": default_ttl_s if engine.rules.idle_ttl_s is None else engine.rules.idle_ttl_s,
        "max_queued": registry.max_queued if engine.rules.max_queued is None else engine.rules.max_queued,
        "expires_in_s": registry.load_scheduler.expires_in_s(engine),
        "memory": None if held is None else _bytes(held.need),
    }


def _bytes(amount: Bytes) -> dict[str, Any]:
    return {"host": amount.host, "gpus": {str(index): n_bytes for index, n_bytes in amount.gpus.items()}}


def is_loaded(engine: Engine) -> bool:
    """Whether an engine answers without loading first."""
    return engine.state is EngineState.READY


def status_word(engine: Engine) -> str:
    """The two words that the contract has for an engine's state."""
    return "loaded" if is_loaded(engine) else "unloaded"


def _engine(request: Request) -> Engine:
    return registry_of(request).get(request.path_params["engine_id"])


def _last_accessed(engine: Engine) -> str | None:
    if engine.last_used_at is None:
        return None
    return (
        datetime.fromtimestamp(engine.last_used_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
