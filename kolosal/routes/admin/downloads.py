"""Fetching models: begin, look at, pause, resume, cancel. A download that nobody watches goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.downloads.download import Download, DownloadStatus, EngineWish
from kolosal.downloads.messages import FoundRepository
from kolosal.downloads.source import MAX_SOURCE_CHARS
from kolosal.engines.memory.policy import IdleTtlS, Rules
from kolosal.engines.parameters import EngineId, other_than_default
from kolosal.errors import Conflict
from kolosal.http.decode import RequestBody, decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.admin.download_views import (
    DownloadList,
    DownloadView,
    PlanView,
    download_view,
    plan_view,
)
from kolosal.routes.admin.engine_body import nested_parameters
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import downloads_of, registry_of

_DOWNLOAD = "/downloads/{download_id:engine}"


class WishedEngine(RequestBody):
    """An engine whose model is being fetched."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")

    engine_id: EngineId
    load_immediately: bool = True
    """False: the engine is loaded at its first use."""
    loading_parameters: dict[str, Any] | None = None
    """As for `POST /engines`."""
    idle_ttl_s: IdleTtlS | None = None
    """Seconds without a request after which it is unloaded, until the next one. 0: never. Not given: as configured."""
    pin: bool = False
    """Never unload it, neither for its idleness nor to make room."""

    @property
    def wish(self) -> EngineWish:
        """As `Downloads` takes it."""
        parameters = nested_parameters(self.loading_parameters, "engine.")
        rules = Rules(idle_ttl_s=self.idle_ttl_s, pin=self.pin)
        return EngineWish(
            self.engine_id, parameters, rules, self.load_immediately, other_than_default(parameters)
        )


class DownloadBody(RequestBody):
    """A model to fetch."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE_CHARS)]
    """`hf.co/ORG/REPO[:QUANT or FILE]`, `ollama:NAME[:TAG]` or `https://HOST/FILE.gguf`."""
    quant: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Which quantisation of a repository. Not given: the one of the name, else the best that fits here."""
    engine: WishedEngine | None = None
    """An engine to add when the model is there. Not given: none."""
    force: bool = False
    """Fetch also a model that is larger than this machine's memory."""
    dry_run: bool = False
    """Only say what would be fetched."""


class HubQuery(BaseModel):
    """What to look for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    search: Annotated[str, Field(min_length=1, max_length=200)]
    """Words of a repository's name."""
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    """How many at most."""


class HubRepositories(TypedDict):
    """Repositories of the hub with models, those that are fetched most first."""

    repositories: Sequence[FoundRepository]


class DownloadsEnded(TypedDict):
    """What became of several downloads."""

    downloads: list[DownloadView]
    count: int


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/downloads", begin_download, methods=["POST"]),
        Route("/downloads", list_downloads),
        Route("/downloads", remove_downloads, methods=["DELETE"]),
        Route("/downloads/cancel", cancel_downloads, methods=["POST"]),
        Route(f"{_DOWNLOAD}/cancel", cancel_download, methods=["POST"]),
        Route(f"{_DOWNLOAD}/pause", pause_download, methods=["POST"]),
        Route(f"{_DOWNLOAD}/resume", resume_download, methods=["POST"]),
        Route(_DOWNLOAD, show_download),
        Route(_DOWNLOAD, remove_download, methods=["DELETE"]),
        Route("/hub/models", search_hub),
    )


@Operation(
    group=Group.DOWNLOADS,
    scope=Access.ADMIN,
    body=DownloadBody,
    example={"source": "hf.co/Qwen/Qwen3-0.6B-GGUF:Q8_0", "dry_run": True},
    status=202,
    answer="The download as it begins; with `dry_run` what would be fetched, with 200.",
)
async def begin_download(request: Request) -> JsonResponse[DownloadView] | JsonResponse[PlanView]:
    """Fetch a model. The answer comes when it is known what that is; the fetching goes on, also over a restart of the daemon."""
    body = await decode(request, DownloadBody)
    wish = None if body.engine is None else body.engine.wish
    if wish is not None:
        expect_free(request, wish.engine_id)
    downloads = downloads_of(request)
    planned = await unless_disconnected(request, downloads.plan(body.source, body.quant))
    if body.dry_run:
        return JsonResponse(plan_view(planned))
    return JsonResponse(download_view(downloads.begin(planned, wish, force=body.force)), 202)


def expect_free(request: Request, engine_id: str) -> None:
    """Refuse a name that an engine has, before a model is fetched for it.

    Raises:
        Conflict: it has.
    """
    if any(engine.engine_id == engine_id for engine in registry_of(request).list()):
        raise Conflict(
            f"Engine ID '{engine_id}' already exists. Please choose a different engine ID.",
            param="engine_id",
            code="engine_id_exists",
        )


@Operation(
    group=Group.DOWNLOADS,
    scope=Access.ADMIN,
    answer="`active_downloads`, and all `downloads` that are remembered.",
)
async def list_downloads(request: Request) -> JsonResponse[DownloadList]:
    """All downloads: those that go on, wait or are paused, and the last that ended."""
    found = downloads_of(request).list()
    going = [each for each in found if each.is_active or each.status is DownloadStatus.PAUSED]
    return JsonResponse(
        {
            "active_downloads": [*map(download_view, going)],
            "total_active": len(going),
            "downloads": [*map(download_view, found)],
            "total_count": len(found),
        }
    )


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The download.")
async def show_download(request: Request) -> JsonResponse[DownloadView]:
    """How far a download is, how fast it is, and how it ended."""
    return _shown(downloads_of(request).get(_id(request)))


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The download, which is paused.")
async def pause_download(request: Request) -> JsonResponse[DownloadView]:
    """Stop a download and keep what is there."""
    return _shown(await downloads_of(request).pause(_id(request)))


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The download, which goes on.")
async def resume_download(request: Request) -> JsonResponse[DownloadView]:
    """Go on with a download that was paused or cancelled, or that failed."""
    return _shown(downloads_of(request).resume(_id(request)))


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The download, which is cancelled.")
async def cancel_download(request: Request) -> JsonResponse[DownloadView]:
    """Stop a download and remove what is there of files that are not whole."""
    return _shown(await downloads_of(request).cancel(_id(request)))


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The download as it was.")
async def remove_download(request: Request) -> JsonResponse[DownloadView]:
    """Forget a download; one that goes on is cancelled first. A model that is there stays."""
    return _shown(await downloads_of(request).remove(_id(request)))


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The downloads that were cancelled.")
async def cancel_downloads(request: Request) -> JsonResponse[DownloadsEnded]:
    """Cancel all downloads."""
    return _ended(list(await downloads_of(request).cancel_all()))


@Operation(group=Group.DOWNLOADS, scope=Access.ADMIN, answer="The downloads that were forgotten.")
async def remove_downloads(request: Request) -> JsonResponse[DownloadsEnded]:
    """Cancel all downloads and forget them."""
    downloads = downloads_of(request)
    return _ended([await downloads.remove(each.id) for each in downloads.list()])


@Operation(
    group=Group.DOWNLOADS,
    scope=Access.ADMIN,
    query=HubQuery,
    answer="Repositories, what is fetched most first.",
)
async def search_hub(request: Request) -> JsonResponse[HubRepositories]:
    """Search Hugging Face's hub for repositories with models that can be fetched."""
    query = read_query(request, HubQuery)
    found = await unless_disconnected(request, downloads_of(request).search(query.search, query.limit))
    return JsonResponse({"repositories": found})


def _id(request: Request) -> str:
    found: str = request.path_params["download_id"]
    return found


def _shown(download: Download) -> JsonResponse[DownloadView]:
    return JsonResponse(download_view(download))


def _ended(downloads: list[Download]) -> JsonResponse[DownloadsEnded]:
    return JsonResponse({"downloads": [*map(download_view, downloads)], "count": len(downloads)})
