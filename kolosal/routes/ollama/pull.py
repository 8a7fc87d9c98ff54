"""`POST /api/pull`: fetching a model, told in the words of Ollama's clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, NotRequired

import orjson
from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.downloads.download import Download, DownloadStatus
from kolosal.downloads.source import MAX_SOURCE_CHARS
from kolosal.errors import DownloadFailed, InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import NDJSON, EventStream
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import downloads_of
from kolosal.routes.ollama.errors import error_line
from kolosal.routes.ollama.names import decode_ollama

_Name = Annotated[str, Field(max_length=MAX_SOURCE_CHARS)]


class PullBody(RequestBody):
    """A model to fetch."""

    model: _Name | None = None
    """A name of Ollama's registry, or `hf.co/ORG/REPO[:QUANT]`."""
    name: _Name | None = None
    """The older name of `model`, which wins."""
    stream: bool | None = None
    """Whether progress is told, one JSON object a line. Not given: true."""
    insecure: bool | None = None
    """Accepted for compatibility: which hosts may be asked without TLS is the setting `downloads.trusted_hosts`."""


class PullStatus(TypedDict):
    """How far it is."""

    status: str
    """`pulling manifest`, `pulling <digest>`, `verifying sha256 digest`, `writing manifest` or `success`."""
    digest: NotRequired[str]
    total: NotRequired[int]
    completed: NotRequired[int]


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    body=PullBody,
    example={"model": "hf.co/Qwen/Qwen3-0.6B-GGUF:Q8_0"},
    stream_media_type="application/x-ndjson",
    answer="`success`, or progress as lines of JSON.",
)
async def pull(request: Request) -> JsonResponse[PullStatus] | EventStream:
    """Fetch a model. A client that leaves leaves the fetching going on; the same request joins it."""
    body = await decode_ollama(request, PullBody)
    name = body.model or body.name
    if not name:
        raise InvalidRequest("model is required", param="model")
    downloads = downloads_of(request)
    planned = await unless_disconnected(request, downloads.plan(name, bare_is_ollama=True))
    download = downloads.begin(planned)
    if body.stream is not False:
        return EventStream(_lines(download), lambda: None, error_line, ping=None, media_type=NDJSON)
    await unless_disconnected(request, _ended(download))
    return JsonResponse({"status": "success"})


async def _ended(download: Download) -> None:
    async for _ in _states(download):
        pass


async def _lines(download: Download) -> AsyncGenerator[bytes, None]:
    yield _line({"status": "pulling manifest"})
    told: list[PullStatus | None] = [None] * len(download.plan.files)
    async for _ in _states(download):
        for index, now in enumerate(_rows(download)):
            if now is not None and now != told[index]:
                told[index] = now
                yield _line(now)
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        yield _line({"status": status})


async def _states(download: Download) -> AsyncGenerator[None, None]:
    """Once for each change, until it has ended well.

    Raises:
        DownloadFailed: it did not.
    """
    while download.is_active:
        changed = download.changed
        yield
        await changed.wait()
    if download.status is not DownloadStatus.COMPLETED:
        raise DownloadFailed(download.error or f"the download was {download.status}")
    yield


def _rows(download: Download) -> list[PullStatus | None]:
    """Each file as a layer."""
    rows: list[PullStatus | None] = []
    for file, said in zip(download.plan.files, download.progress, strict=True):
        completed = said.completed if said else 0
        total = file.size or (said and said.total)
        if not said and download.status is DownloadStatus.COMPLETED:
            completed = file.size or 0
        elif not said:
            rows.append(None)
            continue
        row: PullStatus = {"status": f"pulling {file.sha256[:12] if file.sha256 else file.name}"}
        row["digest"] = f"sha256:{file.sha256}" if file.sha256 else file.name
        if total:
            row["total"], row["completed"] = total, completed
        rows.append(row)
    return rows


def _line(status: PullStatus) -> bytes:
    return orjson.dumps(status) + b"\n"
