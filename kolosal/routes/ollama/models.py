"""The models there are: `/api/tags`, `/api/ps` and `/api/version`. Looking at them loads nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import orjson
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.memory.load_scheduler import LoadScheduler
from kolosal.engines.names import plain
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.models.models_file import ModelsFile
from kolosal.routes.common.known_models import KnownModel, known_models, running_models
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import services_of
from kolosal.routes.ollama.encode import rfc3339
from kolosal.routes.ollama.show import ModelDetails, model_details, modified_at

API_VERSION = "0.12.11"
"""The version of Ollama whose API this is. Clients compare it with the oldest that they work with."""

FOR_EVER = "2318-01-01T00:00:00Z"
"""When a model is unloaded that stays: clients show a time this far away as never."""

_ROW_BYTES = 400
"""About what a row takes."""


class ModelIdentity(TypedDict):
    """What all listings have of a model."""

    name: str
    model: str
    digest: str
    """SHA-256 of what its file is called, its size and time, the model's name and its loading parameters, 64 hexadecimal digits:
    clients take models of one digest for one model."""
    details: ModelDetails


class ListedModel(ModelIdentity):
    """A model there is."""

    modified_at: str
    size: int
    """Bytes of its file."""


class ListResponse(TypedDict):
    """The models there are."""

    models: list[ListedModel]


class RunningModel(ModelIdentity):
    """A model in memory."""

    size: int
    """Bytes it takes."""
    expires_at: str
    """When it is unloaded if nobody uses it; the year 2318 where it stays."""
    size_vram: int
    """How many of the bytes are in GPU memory."""
    context_length: int


class ProcessResponse(TypedDict):
    """The models in memory."""

    models: list[RunningModel]


class VersionResponse(TypedDict):
    """The version of Ollama whose API this is."""

    version: str


@Operation(
    group=Group.OLLAMA,
    scope=Access.ANY_KEY,
    answer="`models`: every engine, and with `library.autoload` every model of the library.",
)
async def tags(request: Request) -> JsonResponse[ListResponse]:
    """All engines, what the library has, and what `models.yaml` names, as Ollama lists models."""
    services = services_of(request)
    models = await unless_disconnected(request, known_models(services))

    def answer() -> JsonResponse[ListResponse]:
        rows = [_row(model) for model in models]
        return JsonResponse({"models": [*rows, *also_named(services.model_settings.said, rows)]})

    return await in_thread_if_large(len(models) * _ROW_BYTES, answer)


@Operation(group=Group.OLLAMA, scope=Access.ANY_KEY, answer="`models`: those in memory.")
async def running(request: Request) -> JsonResponse[ProcessResponse]:
    """The engines that are loaded, as Ollama lists running models."""
    services = services_of(request)
    models = await unless_disconnected(request, running_models(services))
    now, scheduler = datetime.now(UTC), services.registry.load_scheduler
    rows = [_running_row(model, engine, scheduler, now) for engine, model in models]
    return JsonResponse({"models": sorted(rows, key=lambda row: row["expires_at"], reverse=True)})


@Operation(group=Group.OLLAMA, scope=Access.ANY_KEY, answer="`version`: that of the API.")
async def version(_request: Request) -> JsonResponse[VersionResponse]:
    """The version of Ollama whose API this is; the daemon's own is in `/health`."""
    return JsonResponse({"version": API_VERSION})


def also_named(said: ModelsFile, rows: Sequence[ListedModel]) -> Iterator[ListedModel]:
    """Rows for what `models.yaml` calls models otherwise, or makes of them."""
    listed = {plain(row["name"]): row for row in rows}
    for key, name in said.names.items():
        found = said.find(name)
        row = None if found is None else listed.get(plain(found.engine_id)) or listed.get(plain(found.root))
        if row is not None and key not in listed:
            digest = hashlib.sha256(f"{row['digest']} {name}".encode()).hexdigest()
            yield {**row, "name": name, "model": name, "digest": digest}


def _identity(model: KnownModel) -> ModelIdentity:
    """What all listings have."""
    return {
        "name": model.name,
        "model": model.name,
        "digest": _digest(model),
        "details": model_details(model.facts, model.engine),
    }


def _digest(model: KnownModel) -> str:
    """Of no other model, also where that has the same file. The file is not read for it."""
    files = [(str(file.path), file.size, file.mtime_ns) for file in model.files]
    return hashlib.sha256(orjson.dumps([files, model.config])).hexdigest()


def _row(model: KnownModel) -> ListedModel:
    return {**_identity(model), "modified_at": rfc3339(modified_at(model)), "size": model.size}


def _running_row(model: KnownModel, engine: Engine, scheduler: LoadScheduler, now: datetime) -> RunningModel:
    size, size_vram = _sizes(engine, scheduler)
    expires_at = _expires_at(engine, scheduler, now)
    return {
        **_identity(model),
        "size": size,
        "expires_at": FOR_EVER if expires_at is None else rfc3339(expires_at),
        "size_vram": size_vram,
        "context_length": model.n_ctx,
    }


def _sizes(engine: Engine, scheduler: LoadScheduler) -> tuple[int, int]:
    """Bytes that an engine takes, and how many of them are in GPU memory; only its weights where memory is not accounted for.

    What never leaves the host counts as the GPU's where all layers are there: clients show that as `100% GPU`, as with Ollama.
    """
    estimate = scheduler.estimate_of(engine)
    if estimate is not None and estimate.host.total:
        vram = sum(part.total for part in estimate.gpus.values())
        size = estimate.host.total + vram
        return size, size if vram and not estimate.host.kv_cache else vram
    info = engine.info
    size = 0 if info is None else info.size_bytes
    return size, size if info is not None and info.n_gpu_layers else 0


def _expires_at(engine: Engine, scheduler: LoadScheduler, now: datetime) -> datetime | None:
    """When an engine is unloaded if nobody uses it, or uses it any more; None where it stays."""
    left_s = scheduler.expires_in_s(engine)
    if left_s is None:  # in use, or it stays
        left_s = engine.idle_limit_s
    return None if left_s is None else now + timedelta(seconds=left_s)
