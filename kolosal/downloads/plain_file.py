"""A model file at any https address. Blocking, in the fetcher only."""

from __future__ import annotations

from pathlib import Path

from kolosal.downloads.choice import quantisation_of
from kolosal.downloads.net import Reach, get
from kolosal.downloads.plan import NO_VALIDATOR, DownloadPlan, PlannedFile
from kolosal.downloads.source import FileSource
from kolosal.engines.memory.gguf import GGUF_MAGIC
from kolosal.engines.memory.model_files import PART_NAME
from kolosal.errors import DownloadFailed, InvalidRequest, NotFound
from kolosal.paths import path_below


def plan_file(source: FileSource, folder: Path, trusted_hosts: tuple[str, ...]) -> DownloadPlan:
    """What is to be fetched from a URL.

    Raises:
        InvalidRequest: nothing may be fetched from there.
        NotFound: there is nothing.
        DownloadFailed: the server does not answer, or has no GGUF file there.
    """
    if PART_NAME.search(source.file):
        raise InvalidRequest(
            f"{source.file} is one part of a model: only whole models are fetched by URL", param="source"
        )
    with get(source.url, Reach.of(source.url, trusted_hosts), {}) as response:
        where = response.url.authority
        if response.status in (401, 403, 404, 410):
            raise NotFound(f"{where} has no {source.file} for us (HTTP {response.status})", param="source")
        if response.status != 200:
            raise DownloadFailed(f"{where} answered HTTP {response.status} for {source.file}")
        length = response.headers.get("content-length", "")
        if response.read_start(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise DownloadFailed(f"What {where} has under {source.file} is no GGUF file")
        etag = response.headers.get("etag", "")
        validator = etag if etag.startswith('"') else response.headers.get("last-modified", NO_VALIDATOR)
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
    path = str(path_below(folder, source.file))
    name = source.file[: -len(".gguf")]
    return DownloadPlan(
        source=source.text,
        kind="file",
        name=name,
        quant=quantisation_of(source.file),
        files=(PlannedFile(source.url.text, path, size, None, validator),),
        model_path=path,
    )
