"""The models there are: `/api/tags`, `/api/ps` and `/api/version`. Looking at them loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.memory.load_scheduler import LoadScheduler
from kolosal.engines.state import EngineState
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.file_cache import FileVersion
from kolosal.routes.common.model_cards import ModelCard
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Services, services_of
from kolosal.routes.ollama.encode import rfc3339
from kolosal.routes.ollama.show import ModelDetails, added_at, describe_model

API_VERSION = "0.12.11"
"""The version of Ollama whose API this is. Clients compare it with the oldest that they work with."""

FOR_EVER = "2318-01-01T00:00:00Z"
"""When a model is unloaded that stays: clients show a time this far away as never."""

_NO_DIGEST = "0" * 64
"""Stands for the digest of a file that is gone: clients cut digests and need one that is long enough."""


class ModelIdentity(TypedDict):
    """What all listings have of a model."""

    name: str
    model: str
    digest: str
    """SHA-256 of its file, 64 hexadecimal digits."""
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
    answer="`models`: every engine as a model.",
)
async def tags(request: Request) -> JsonResponse[ListResponse]:
    """All engines, as Ollama lists models. The first listing of a model reads its whole file, for the digest."""
    services = services_of(request)
    models = await unless_disconnected(request, _models(services, services.registry.list()))
    return JsonResponse({"models": [_row(model) for model in models]})


@Operation(group=Group.OLLAMA, scope=Access.ANY_KEY, answer="`models`: those in memory.")
async def running(request: Request) -> JsonResponse[ProcessResponse]:
    """The engines that are loaded, as Ollama lists running models."""
    services = services_of(request)
    engines = [engine for engine in services.registry.list() if engine.state is EngineState.READY]
    models = await unless_disconnected(request, _models(services, engines))
    now, scheduler = datetime.now(UTC), services.registry.load_scheduler
    rows = [_running_row(model, scheduler, now) for model in models]
    return JsonResponse({"models": sorted(rows, key=lambda row: row["expires_at"], reverse=True)})


@Operation(group=Group.OLLAMA, scope=Access.ANY_KEY, answer="`version`: that of the API.")
async def version(_request: Request) -> JsonResponse[VersionResponse]:
    """The version of Ollama whose API this is; the daemon's own is in `/health`."""
    return JsonResponse({"version": API_VERSION})


@dataclass(frozen=True, slots=True)
class _Model:
    """An engine, and what is known of its file."""

    engine: Engine
    file: FileVersion | None
    digest: str
    card: ModelCard | None

    @property
    def row(self) -> ModelIdentity:
        """What all listings have."""
        return {
            "name": self.engine.engine_id,
            "model": self.engine.engine_id,
            "digest": self.digest,
            "details": describe_model(self.engine, self.card).details,
        }


async def _models(services: Services, engines: list[Engine]) -> list[_Model]:
    found = []
    for engine in engines:
        path = Path(engine.config.model_path)
        file, digest = await services.digests.of(path) or (None, _NO_DIGEST)
        _, card = await services.cards.of(path) or (None, None)
        found.append(_Model(engine, file, digest, card))
    return found


def _row(model: _Model) -> ListedModel:
    file = model.file
    modified = added_at(model.engine) if file is None else file.modified_at
    return {**model.row, "modified_at": rfc3339(modified), "size": 0 if file is None else file.size}


def _running_row(model: _Model, scheduler: LoadScheduler, now: datetime) -> RunningModel:
    engine = model.engine
    size, size_vram = _sizes(engine, scheduler)
    expires_at = _expires_at(engine, scheduler, now)
    return {
        **model.row,
        "size": size,
        "expires_at": FOR_EVER if expires_at is None else rfc3339(expires_at),
        "size_vram": size_vram,
        "context_length": engine.config.parameters.n_ctx if engine.info is None else engine.info.n_ctx,
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
