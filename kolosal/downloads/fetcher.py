"""The fetcher: a process that plans or fetches one download, or searches the hub. `python -m kolosal.downloads.fetcher`, a request on stdin.

A process of its own, because what it imports and does would cost a daemon memory and its event loop time, and because it can
be ended at any moment: pausing a download is ending this. It ends by itself when its stdin does, that is, with the daemon.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import orjson

from kolosal.downloads.address import parse_url
from kolosal.downloads.choice import Room
from kolosal.downloads.fetch import FetchReport, fetch
from kolosal.downloads.messages import (
    Fetched,
    FetchFailed,
    FetchRequest,
    FileProgress,
    HubAnswer,
    Offer,
    Planned,
    PlanRequest,
    SearchRequest,
    request_adapter,
)
from kolosal.downloads.net import Reach, Secret
from kolosal.downloads.ollama_registry import plan_ollama, write_manifest
from kolosal.downloads.part import present_bytes
from kolosal.downloads.plain_file import plan_file
from kolosal.downloads.source import FileSource, HubSource, OllamaSource, parse_source, with_quant
from kolosal.engines.memory.machine import read_memory
from kolosal.errors import KolosalError
from kolosal.models.ollama_store import FETCHED_FOLDER

PROGRESS_S = 0.1
"""Between two messages about progress."""


def main() -> int:
    """Answer the one request; the exit status."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no message
    line = _read_request()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    message: Planned | HubAnswer | Fetched | FetchFailed
    try:
        request = request_adapter().validate_json(line)
        match request:
            case PlanRequest():
                message = _plan(request)
            case SearchRequest():
                message = _search(request)
            case FetchRequest():
                message = _fetch(request, out)
    except KolosalError as exc:
        message = FetchFailed(_named(exc), exc.message, exc.param, exc.code)
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        message = FetchFailed("DownloadFailed", f"{where}{exc.strerror or exc}")
    except Exception as exc:  # noqa: BLE001 - a defect of ours, or of a library: the daemon logs it
        message = FetchFailed("InternalError", f"{type(exc).__name__}: {exc}")
    _say(out, message)
    return 0


def _named(error: KolosalError) -> str:
    """The class of `kolosal.errors` that this is, or is a kind of."""
    return next(each.__name__ for each in type(error).__mro__ if each.__module__ == "kolosal.errors")


def _say(out: BinaryIO, message: object) -> None:
    out.write(orjson.dumps(message) + b"\n")


def _read_request() -> bytes:
    """The line on stdin. Read without a buffer, which a thread that reads on would hold when the process ends."""
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(sys.stdin.fileno(), 1 << 16)):
        line += piece
    return line


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(3)


def _plan(request: PlanRequest) -> Planned:
    source = with_quant(parse_source(request.source, bare_is_ollama=request.bare_is_ollama), request.quant)
    memory = read_memory(request.cuda_visible_devices)
    room = Room.of(
        memory.host_total,
        sum(gpu.free_bytes for gpu in memory.gpus),
        sum(gpu.total_bytes for gpu in memory.gpus),
    )
    folder = Path(request.folder)
    offers: tuple[Offer, ...] = ()
    match source:
        case HubSource():
            from kolosal.downloads.hub import plan_hub  # noqa: PLC0415 - slow, and only for this

            plan, offers = plan_hub(source, room)
        case OllamaSource():
            plan = plan_ollama(source, request.registry, folder / FETCHED_FOLDER)
        case FileSource():
            plan = plan_file(source, folder, request.trusted_hosts)
    size = plan.total_bytes
    present = sum(present_bytes(Path(file.path)) for file in plan.files)
    return Planned(
        replace(plan, present_bytes=present),
        comfortable=room.is_comfortable(size),
        loadable=room.holds(size),
        free_bytes=_free_bytes(Path(plan.files[0].path)),
        offers=offers,
    )


def _search(request: SearchRequest) -> HubAnswer:
    from kolosal.downloads.hub import search_hub  # noqa: PLC0415 - as above

    return HubAnswer(search_hub(request.words, request.limit))


def _free_bytes(path: Path) -> int:
    """Of the disk that a path will be on, though its folders may not be there yet."""
    there = next(each for each in path.parents if each.exists())
    return shutil.disk_usage(there).free


def _fetch(request: FetchRequest, out: BinaryIO) -> Fetched:
    plan = request.plan
    reach, secret = _access(request)
    for index, file in enumerate(plan.files):
        fetch(file, reach, secret, _reporter(out, index))
    if plan.hub is not None:
        from kolosal.downloads.hub import name_files  # noqa: PLC0415 - as above

        name_files(plan.hub)
    if plan.ollama is not None:
        write_manifest(plan.ollama)
    return Fetched()


def _access(request: FetchRequest) -> tuple[Reach, Secret | None]:
    plan = request.plan
    if plan.hub is not None:
        from kolosal.downloads import hub  # noqa: PLC0415 - as above

        return hub.reach(), hub.secret()
    if plan.ollama is not None:
        return Reach.of(parse_url(request.registry), configured=True), None
    return Reach.of(parse_url(plan.files[0].url), request.trusted_hosts), None


def _reporter(out: BinaryIO, index: int) -> FetchReport:
    """Tells the daemon, not too often, but always how it ends."""
    told_at = 0.0
    last = (0, None)

    def progress(completed: int, total: int | None) -> None:
        nonlocal told_at, last
        last = (completed, total)  # type: ignore[assignment]
        now = time.monotonic()
        if now - told_at >= PROGRESS_S or completed == total:
            told_at = now
            _say(out, FileProgress(index, completed, total))

    def verifying() -> None:
        _say(out, FileProgress(index, *last, verifying=True))

    return FetchReport(progress, verifying)


if __name__ == "__main__":
    sys.exit(main())
