"""The models there are: `/api/tags`, `/api/show`, `/api/ps` and `/api/version`. Looking at them loads nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kolosal.engines.engine import Engine, EngineState
from kolosal.http.decode import RequestBody
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.digests import FileDigests, FileFacts
from kolosal.routes.ollama.answer_types import ModelTags, RunningModels, ShownModel, Version
from kolosal.routes.ollama.encode import rfc3339
from kolosal.routes.ollama.facts import facts_of
from kolosal.routes.ollama.names import ModelName, checked_name, decode_ollama, find_engine
from kolosal.routes.operation import Access, Group, Operation
from kolosal.routes.services import registry_of, services_of

API_VERSION = "0.12.11"
"""The version of Ollama whose API this is. Clients compare it with the oldest that they work with."""

FOR_EVER = "2318-01-01T00:00:00Z"
"""When a model is unloaded that stays: clients show a time this far away as never."""

_NO_DIGEST = "0" * 64
"""Stands for the digest of a file that is gone: clients cut digests and need one that is long enough."""


class ShowBody(RequestBody):
    """A model to look at."""

    model: ModelName | None = None
    """An `engine_id`, perhaps with `:latest`."""
    name: ModelName | None = None
    """The older name of `model`, which wins."""
    verbose: bool | None = None
    """Changes nothing: no long arrays are left out."""


@Operation(
    group=Group.OLLAMA,
    scope=Access.ANY_KEY,
    answer="`models`: every engine as a model.",
    answer_type=ModelTags,
)
async def tags(request: Request) -> Response:
    """All engines, as Ollama lists models. The first listing of a model reads its whole file, for the digest."""
    services = services_of(request)
    engines = services.registry.list()
    found = await unless_disconnected(request, _file_facts(services.digests, engines))
    return JsonResponse(
        {"models": [_row(engine, facts) for engine, facts in zip(engines, found, strict=True)]}
    )


@Operation(
    group=Group.OLLAMA,
    scope=Access.ANY_KEY,
    body=ShowBody,
    example={"model": "tiny"},
    answer="What is known of the model. Of one that was never loaded that is little.",
    answer_type=ShownModel,
)
async def show(request: Request) -> Response:
    """One engine, as Ollama shows a model."""
    body = await decode_ollama(request, ShowBody)
    registry = registry_of(request)
    engine = find_engine(registry, checked_name(registry, body.model or body.name))
    facts, parameters, path = facts_of(engine), engine.config.parameters, engine.config.model_path
    written = f"{'num_ctx':<30} {parameters.n_ctx}"
    return JsonResponse(
        {
            "modelfile": f"FROM {path}\nPARAMETER num_ctx {parameters.n_ctx}\n",
            "parameters": written,
            "template": parameters.chat_template or "",
            "details": facts.details,
            "model_info": facts.metadata,
            "capabilities": facts.capabilities,
            "modified_at": rfc3339(await asyncio.to_thread(_modified_at, engine)),
        }
    )


@Operation(
    group=Group.OLLAMA, scope=Access.ANY_KEY, answer="`models`: those in memory.", answer_type=RunningModels
)
async def running(request: Request) -> Response:
    """The engines that are loaded, as Ollama lists running models."""
    services = services_of(request)
    engines = [engine for engine in services.registry.list() if engine.state is EngineState.READY]
    found = await unless_disconnected(request, _file_facts(services.digests, engines))
    rows = [_running_row(engine, facts) for engine, facts in zip(engines, found, strict=True)]
    return JsonResponse({"models": rows})


@Operation(
    group=Group.OLLAMA, scope=Access.ANY_KEY, answer="`version`: that of the API.", answer_type=Version
)
async def version(_request: Request) -> Response:
    """The version of Ollama whose API this is; the daemon's own is in `/health`."""
    return JsonResponse({"version": API_VERSION})


async def _file_facts(digests: FileDigests, engines: list[Engine]) -> list[FileFacts | None]:
    return [await digests.of(Path(engine.config.model_path)) for engine in engines]


def _modified_at(engine: Engine) -> datetime:
    """When the model file was written. Reads the disk."""
    try:
        return datetime.fromtimestamp(Path(engine.config.model_path).stat().st_mtime, UTC)
    except OSError:
        return _added_at(engine)


def _added_at(engine: Engine) -> datetime:
    return datetime.fromtimestamp(engine.created_at, UTC)


def _row(engine: Engine, facts: FileFacts | None) -> dict[str, Any]:
    modified = _added_at(engine) if facts is None else facts.modified_at
    return {
        "name": engine.engine_id,
        "model": engine.engine_id,
        "modified_at": rfc3339(modified),
        "size": 0 if facts is None else facts.size,
        "digest": _digest(facts),
        "details": facts_of(engine).details,
    }


def _running_row(engine: Engine, facts: FileFacts | None) -> dict[str, Any]:
    info = engine.info
    size = 0 if info is None else info.size_bytes
    return {
        "name": engine.engine_id,
        "model": engine.engine_id,
        "size": size,
        "digest": _digest(facts),
        "details": facts_of(engine).details,
        "expires_at": FOR_EVER,
        "size_vram": size if info is not None and info.n_gpu_layers else 0,
        "context_length": engine.config.parameters.n_ctx if info is None else info.n_ctx,
    }


def _digest(facts: FileFacts | None) -> str:
    return _NO_DIGEST if facts is None else facts.digest
