"""`GET /v1/models`: every engine is a model, and so is what the library has, with what front ends read. Listing loads nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, NotRequired

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.downloads.download import Download
from kolosal.engines.engine import Engine
from kolosal.engines.parameters import LLAMACPP, EngineId
from kolosal.errors import NotFound
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.models.entry import Capability
from kolosal.routes.common.known_models import KnownModel, Status, aliases_of, known_model, known_models
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import services_of

_OWNER = "kolosal"

_ROW_BYTES = 600
"""About what a row takes."""


class ModelsQuery(BaseModel):
    """How fresh the list must be."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    reload: bool = False
    """True: the folders of the library are looked at first."""


class LoadProgress(TypedDict):
    """How far a model is loaded, in llama-server's words."""

    stages: list[str]
    current: str
    value: float
    """0 to 1."""


class ModelStatus(TypedDict):
    """Whether a model is in memory."""

    value: Status | Literal["downloading"]
    failed: NotRequired[bool]
    """True where the last load failed; the next request tries again."""
    progress: NotRequired[LoadProgress]
    """While it loads, or is fetched."""


class ModelMeta(TypedDict):
    """What the model's file says."""

    architecture: str
    quantization: str
    n_ctx: int
    """Tokens that one request may use."""
    n_ctx_train: int
    """Tokens the model was trained for."""
    n_params: int
    n_embd: int
    n_vocab: int
    size: int
    """Bytes of its files."""


class ModelModalities(TypedDict):
    """What goes in and comes out."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelObject(TypedDict):
    """A model that requests can name."""

    id: str
    """The `engine_id`, the name in the library, or of a download."""
    object: Literal["model"]
    created: int
    """When the engine was added, the file written, or the download begun: Unix time in seconds."""
    owned_by: str
    name: str
    """The model's file."""
    backend: str
    """What generates: `llamacpp`, `transformers`, `echo`, or one that was added."""
    aliases: list[str]
    """Its other names."""
    status: ModelStatus
    capabilities: list[Capability]
    """What can be done with it; empty where its file cannot be read."""
    context_length: int
    """Tokens that one request may use."""
    max_model_len: int
    """The same, as vLLM calls it."""
    architecture: ModelModalities
    meta: ModelMeta | None
    """null where its file cannot be read."""


class ModelList(TypedDict):
    """All models, loaded or not, and those that are being fetched."""

    object: Literal["list"]
    data: list[ModelObject]


@Operation(
    group=Group.OPENAI,
    scope=Access.ANY_KEY,
    query=ModelsQuery,
    answer="`data`: every engine, with `library.autoload` every model of the library, and what is being fetched.",
)
async def list_models(request: Request) -> JsonResponse[ModelList]:
    """All models: engines in the order they were added, those that a request would make engines, those on their way."""
    services = services_of(request)
    if read_query(request, ModelsQuery).reload:
        await services.library.refresh()
    models, aliases = await known_models(services), aliases_of(services)
    data = [_row(model, aliases.get(model.name, [])) for model in models]
    data += (_fetched_row(each) for each in services.downloads.list() if each.is_active)
    return await in_thread_if_large(
        len(models) * _ROW_BYTES, lambda: JsonResponse({"object": "list", "data": data})
    )


@Operation(
    group=Group.OPENAI,
    scope=Access.ANY_KEY,
    path={"model": EngineId},
    answer="The model.",
)
async def show_model(request: Request) -> JsonResponse[ModelObject]:
    """One model."""
    services, name = services_of(request), request.path_params["model"]

    def not_found() -> NotFound:
        like = services.registry.did_you_mean(name)
        return NotFound(f"Model '{name[:100]}' not found{like}", param="model", code="model_not_found")

    model = await known_model(services, name, not_found)
    return JsonResponse(_row(model, aliases_of(services).get(model.name, [])))


def _row(model: KnownModel, aliases: list[str]) -> ModelObject:
    facts = model.facts
    return {
        "id": model.name,
        "object": "model",
        "created": _created(model),
        "owned_by": _OWNER,
        "name": Path(model.config.model_path).name,
        "backend": model.config.backend,
        "aliases": aliases,
        "status": model_status(model.status, model.engine),
        "capabilities": [] if facts is None else [*facts.capabilities],
        "context_length": model.n_ctx,
        "max_model_len": model.n_ctx,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "meta": _meta(model),
    }


def _fetched_row(download: Download) -> ModelObject:
    """A model that requests cannot name yet."""
    fraction = download.completed_bytes / download.total_bytes if download.total_bytes else 0.0
    engine = download.engine
    return {
        "id": download.id if engine is None else engine.engine_id,
        "object": "model",
        "created": download.started_ms // 1000,
        "owned_by": _OWNER,
        "name": download.id,
        "backend": LLAMACPP,
        "aliases": [],
        "status": {
            "value": "downloading",
            "progress": {"stages": ["download"], "current": "download", "value": fraction},
        },
        "capabilities": [],
        "context_length": 0,
        "max_model_len": 0,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "meta": None,
    }


def _created(model: KnownModel) -> int:
    if model.engine is not None:
        return int(model.engine.created_at)
    return int(model.files[0].mtime_ns / 1e9 if model.files else time.time())


def _meta(model: KnownModel) -> ModelMeta | None:
    facts = model.facts
    if facts is None:
        return None
    return {
        "architecture": facts.architecture,
        "quantization": facts.quantization,
        "n_ctx": model.n_ctx,
        "n_ctx_train": facts.n_ctx_train,
        "n_params": facts.n_params,
        "n_embd": facts.n_embd,
        "n_vocab": facts.n_vocab,
        "size": model.size,
    }


def model_status(value: Status, engine: Engine | None) -> ModelStatus:
    """Whether a model is in memory, and how far it is on the way."""
    if value == "failed":
        return {"value": value, "failed": True}
    if value == "loading" and engine is not None:
        return {"value": value, "progress": load_progress(engine.load_progress or 0.0)}
    return {"value": value}


def load_progress(fraction: float) -> LoadProgress:
    """The progress of a load, which has one stage here."""
    return {"stages": ["text_model"], "current": "text_model", "value": fraction}
