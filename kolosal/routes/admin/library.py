"""The library: the models on this machine's disks, and what is known of each. Looking loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.errors import NotFound
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.models.entry import Capability, LibraryModel, Source
from kolosal.models.library import Library
from kolosal.models.stores import Store
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.engine_path import LIBRARY_MODEL
from kolosal.routes.common.known_models import Status, status_of
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.query import read_query
from kolosal.routes.common.removal import remove_model
from kolosal.routes.common.services import Services, services_of

_ROW_BYTES = 600
"""About what a row takes."""


class LibraryQuery(BaseModel):
    """How fresh the list must be."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    refresh: bool = False
    """True: the disk is looked at first, and all headers are read. False: what was seen some seconds ago will do."""


class LibraryModelQuery(BaseModel):
    """What to find out."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    digest: bool = False
    """True: the file is read whole for its digest where nobody has done so yet."""


class LibraryFile(TypedDict):
    """A file of a model."""

    path: str
    """Its whole path for keys of the scope `admin`, its name for others."""
    size: int


class LibraryRow(TypedDict):
    """A model of the library."""

    name: str
    """What requests call it."""
    source: Source
    size: int
    """Bytes of its files."""
    files: list[LibraryFile]
    """Its parts in order; one, where it is not split."""
    projector: LibraryFile | None
    """The `mmproj` file beside it."""
    architecture: str | None
    parameters: int | None
    """How many weights it has."""
    quantization: str | None
    n_ctx_train: int | None
    """Tokens it was trained for; 0 where its file does not say. null, as all of these, where its header is not read or damaged."""
    capabilities: list[Capability]
    digest: str | None
    """SHA-256 of its file, 64 hexadecimal digits, where that is known; null of one in parts."""
    added_at: str
    """When its file came to lie there, UTC."""
    modified_at: str
    """When its file was written, UTC."""
    last_used_at: str | None
    """When it was last asked something, UTC; null: not that anybody knows."""
    error: str | None
    """Why it cannot be loaded."""
    engines: list[str]
    """The engines that have its file."""
    status: Status
    """Whether one of them is in memory."""


class LibraryFolder(TypedDict):
    """A folder that models are looked for in."""

    source: Source
    path: str
    problem: str | None
    """Why it cannot be read."""


class LibraryList(TypedDict):
    """All models of the library."""

    models: list[LibraryRow]
    total_size: int
    """Bytes of all of them."""
    folders: list[LibraryFolder]
    """Where they were looked for; for keys of the scope `admin` only."""


class LibraryRemoved(TypedDict):
    """What became of a model."""

    name: str
    freed_bytes: int


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/library", list_library),
        Route(LIBRARY_MODEL, show_library_model),
        Route(LIBRARY_MODEL, remove_library_model, methods=["DELETE"]),
    )


@Operation(
    group=Group.LIBRARY,
    scope=Access.ANY_KEY,
    query=LibraryQuery,
    answer="`models`: all there are, damaged ones with their error.",
)
async def list_library(request: Request) -> JsonResponse[LibraryList]:
    """The models on this machine's disks."""
    services, admin = services_of(request), is_admin(request.scope)
    library = services.library
    if read_query(request, LibraryQuery).refresh:
        await unless_disconnected(request, library.refresh())
    models = await library.fresh()
    engines = _engines_by_path(services)
    answer: LibraryList = {
        "models": [_row(services, model, engines, admin=admin) for model in models],
        "total_size": sum(model.size for model in models),
        "folders": [_folder(library, store) for store in library.stores] if admin else [],
    }
    return await in_thread_if_large(len(models) * _ROW_BYTES, lambda: JsonResponse(answer))


@Operation(
    group=Group.LIBRARY,
    scope=Access.ANY_KEY,
    query=LibraryModelQuery,
    answer="The model.",
)
async def show_library_model(request: Request) -> JsonResponse[LibraryRow]:
    """One model of the library, by any of its names."""
    services, query = services_of(request), read_query(request, LibraryModelQuery)
    model = await _model(request)
    if query.digest and model.error is None:
        await unless_disconnected(request, services.library.find_digest(model))
    return JsonResponse(_row(services, model, _engines_by_path(services), admin=is_admin(request.scope)))


@Operation(
    group=Group.LIBRARY,
    scope=Access.ADMIN,
    answer="Which model was removed, and the bytes that are free now.",
)
async def remove_library_model(request: Request) -> JsonResponse[LibraryRemoved]:
    """Remove a model's files, after an engine that a request made of it. An engine that somebody added must go first."""
    services = services_of(request)
    model = await _model(request)
    freed = await remove_model(services, model)
    return JsonResponse({"name": model.name, "freed_bytes": freed})


async def _model(request: Request) -> LibraryModel:
    services, name = services_of(request), request.path_params["model"]
    model = await services.library.look_up(name)
    if model is None:
        like = services.registry.did_you_mean(name)
        raise NotFound(f"Model '{name[:100]}' not found{like}", param="model", code="model_not_found")
    return model


def _folder(library: Library, store: Store) -> LibraryFolder:
    path = str(store.folder)
    return {"source": store.source, "path": path, "problem": library.problems.get(path)}


def _engines_by_path(services: Services) -> dict[str, list[Engine]]:
    engines: dict[str, list[Engine]] = {}
    for engine in services.registry.list():
        engines.setdefault(engine.config.model_path, []).append(engine)
    return engines


def _row(
    services: Services, model: LibraryModel, by_path: Mapping[str, list[Engine]], *, admin: bool
) -> LibraryRow:
    engines, facts = by_path.get(str(model.path), []), model.facts
    used_at = services.library.last_used_at(model)

    def file(path: object, size: int) -> LibraryFile:
        return {"path": str(path) if admin else str(path).replace("\\", "/").rpartition("/")[2], "size": size}

    return {
        "name": model.name,
        "source": model.source,
        "size": model.size,
        "files": [file(each.path, each.size) for each in model.files],
        "projector": None if model.projector is None else file(model.projector.path, model.projector.size),
        "architecture": None if facts is None else facts.architecture,
        "parameters": None if facts is None else facts.n_params,
        "quantization": None if facts is None else facts.quantization,
        "n_ctx_train": None if facts is None else facts.n_ctx_train,
        "capabilities": [] if facts is None else [*facts.capabilities],
        "digest": services.library.digest_of(model),
        "added_at": _utc(model.added_at),
        "modified_at": _utc(model.files[0].mtime_ns / 1e9),
        "last_used_at": None if used_at is None else _utc(used_at),
        "error": model.error,
        "engines": [engine.engine_id for engine in engines],
        "status": next((status for status in map(status_of, engines) if status != "unloaded"), "unloaded"),
    }


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
