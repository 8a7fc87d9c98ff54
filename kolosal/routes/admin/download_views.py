"""What the download routes answer."""

from __future__ import annotations

import time
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from kolosal.downloads.address import parse_url
from kolosal.downloads.download import Download, DownloadStatus
from kolosal.downloads.messages import Planned
from kolosal.observe.events import now_ms


class DownloadProgress(TypedDict):
    """How far it is."""

    downloaded_bytes: int
    total_bytes: int
    percentage: float
    download_speed_bps: float
    """Bytes a second, over the last five seconds."""


class DownloadTiming(TypedDict):
    """When it was begun, and how long it may take."""

    start_time: int
    """Unix time in milliseconds."""
    elapsed_seconds: float
    estimated_remaining_seconds: NotRequired[float]
    end_time: NotRequired[int]


class EngineCreation(TypedDict):
    """The engine that is added when all is there."""

    engine_id: str
    status: Literal["waiting", "creating", "created", "failed"]


class DownloadView(TypedDict):
    """One download."""

    model_id: str
    status: DownloadStatus
    source: str
    """The name it was asked for by, complete."""
    model: str | None
    """What the library calls it, once it is there."""
    queued: bool
    """Whether it waits for others to end."""
    url: str
    """Of its first file."""
    local_path: str
    """What is loaded, once all is there."""
    files: int
    progress: DownloadProgress
    timing: DownloadTiming
    error_message: NotRequired[str]
    engine_creation: NotRequired[EngineCreation]


class DownloadList(TypedDict):
    """All downloads."""

    active_downloads: list[DownloadView]
    """Those that go on, wait or are paused."""
    total_active: int
    downloads: list[DownloadView]
    """All that are remembered, the oldest first."""
    total_count: int


class PlannedFileView(TypedDict):
    """A file that would be fetched."""

    name: str
    size: int | None
    sha256: str | None


class OfferView(TypedDict):
    """One of the models that a repository of the hub has."""

    source: str
    """The complete name that fetches it."""
    quant: str
    """Its quantisation, or its file's name where that says none."""
    size: int
    comfortable: bool
    loadable: bool


class PlanView(TypedDict):
    """What would be fetched."""

    source: str
    model_id: str
    quant: str
    files: list[PlannedFileView]
    total_bytes: int
    present_bytes: int
    """What of it is here already."""
    free_bytes: int
    """Of the disk that it goes to."""
    local_path: str
    comfortable: bool
    """Whether this machine's memory holds it well: by rule of thumb, as its header is not here yet."""
    loadable: bool
    """Whether it does at all."""
    offers: list[OfferView]
    """All models of the repository, the smallest first; none of other places than the hub."""


def download_view(download: Download) -> DownloadView:
    """One download as the routes show it."""
    total, completed = download.total_bytes, download.completed_bytes
    speed = download.speed.bytes_per_s(time.monotonic()) if download.is_active else 0.0
    view: DownloadView = {
        "model_id": download.id,
        "status": download.status,
        "source": download.plan.source,
        "model": download.model,
        "queued": download.queued,
        "url": parse_url(download.plan.files[0].url).without_query,
        "local_path": download.plan.model_path,
        "files": len(download.plan.files),
        "progress": {
            "downloaded_bytes": completed,
            "total_bytes": total,
            "percentage": round(100 * completed / total, 2) if total else 0.0,
            "download_speed_bps": round(speed, 1),
        },
        "timing": _timing(download, speed),
    }
    if download.error is not None:
        view["error_message"] = download.error
    if download.engine is not None:
        view["engine_creation"] = {"engine_id": download.engine.engine_id, "status": _creation(download)}
    return view


def _timing(download: Download, speed: float) -> DownloadTiming:
    end = download.ended_ms
    timing: DownloadTiming = {
        "start_time": download.started_ms,
        "elapsed_seconds": round(max(0, (end or now_ms()) - download.started_ms) / 1000, 3),
    }
    if end is not None:
        timing["end_time"] = end
    elif speed > 0 and download.total_bytes:
        timing["estimated_remaining_seconds"] = round(
            (download.total_bytes - download.completed_bytes) / speed, 1
        )
    return timing


def _creation(download: Download) -> Literal["waiting", "creating", "created", "failed"]:
    match download.status:
        case DownloadStatus.CREATING_ENGINE:
            return "creating"
        case DownloadStatus.COMPLETED:
            return "created"
        case DownloadStatus.FAILED | DownloadStatus.CANCELLED:
            return "failed"
        case _:
            return "waiting"


def plan_view(planned: Planned) -> PlanView:
    """What would be fetched, as the routes show it."""
    plan = planned.plan
    return {
        "source": plan.source,
        "model_id": plan.name,
        "quant": plan.quant,
        "files": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in plan.files],
        "total_bytes": plan.total_bytes,
        "present_bytes": plan.present_bytes,
        "free_bytes": planned.free_bytes,
        "local_path": plan.model_path,
        "comfortable": planned.comfortable,
        "loadable": planned.loadable,
        "offers": [
            {
                "source": each.source,
                "quant": each.quant,
                "size": each.size,
                "comfortable": each.comfortable,
                "loadable": each.loadable,
            }
            for each in planned.offers
        ],
    }
