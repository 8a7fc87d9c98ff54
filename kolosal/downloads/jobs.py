"""Downloads: all that is being fetched, was, or waits for its turn. They outlive a restart of the daemon, and who asked for them.

Owns the list, who is next, and the file that it is kept in. The bytes are a fetcher's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kolosal.config.downloads import DownloadSettings
from kolosal.downloads.download import Download, DownloadStatus, EngineWish, StoredDownload
from kolosal.downloads.download_file import MAX_KEPT, DownloadFile
from kolosal.downloads.messages import FetchRequest, FileProgress, FoundRepository, Planned, PlanRequest
from kolosal.downloads.part import remove_part
from kolosal.downloads.process import FetcherCommand
from kolosal.errors import (
    Conflict,
    Draining,
    Forbidden,
    InternalError,
    InvalidRequest,
    KolosalError,
    NotFound,
    QueueFull,
    StorageFull,
)
from kolosal.files.in_thread import in_thread
from kolosal.observe.events import EventLog, now_ms

log = logging.getLogger(__name__)

MAX_ACTIVE = 100
"""Downloads that go on, are paused or wait."""
EVENT_S = 0.5
"""Between two events about the progress of one download."""

Arrived = Callable[[Download], Awaitable[None]]
"""What is done with a model that is there. Raises a KolosalError where that fails."""


async def _nothing(_download: Download) -> None:
    pass


class Downloads:
    """Used on the event loop only. `restore` comes first, `close` last."""

    def __init__(
        self,
        settings: DownloadSettings,
        folder: Path | None,
        command: FetcherCommand,
        *,
        kept_in: DownloadFile | None = None,
        events: EventLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` is where models go that are not the hub's; None: there is no such place."""
        self.settings = settings
        self.on_arrival: Arrived = _nothing
        self._folder = folder
        self._command = command
        self._file = kept_in
        self._events = events or EventLog()
        self._clock = clock
        self._downloads: dict[str, Download] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, float] = {}
        self._places = asyncio.Semaphore(settings.parallel)
        self._closed = False

    # --- looking ---

    def list(self) -> list[Download]:
        """All, the oldest first."""
        return [*self._downloads.values()]

    def get(self, download_id: str) -> Download:
        """One.

        Raises:
            NotFound: there is none of that id.
        """
        found = self._downloads.get(download_id)
        if found is None:
            raise NotFound(f"No download found for model ID: {download_id[:200]}", code="download_not_found")
        return found

    async def search(self, words: str, limit: int) -> Sequence[FoundRepository]:
        """Repositories of the hub that have models, those that are fetched most first.

        Raises:
            Forbidden: nothing is fetched here.
            KolosalError: the hub does not answer.
        """
        self._check_allowed()
        return await self._command.search(words, limit)

    # --- beginning ---

    async def plan(self, source: str, quant: str | None = None, *, bare_is_ollama: bool = False) -> Planned:
        """What would be fetched, and whether this machine has room for it.

        Raises:
            Forbidden: nothing is fetched here, or not this.
            KolosalError: it cannot be fetched, for a reason that the message says.
        """
        self._check_allowed()
        if self._folder is None:
            raise InvalidRequest(
                "There is no folder to fetch models into: name one in the setting library.folders",
                param="source",
            )
        return await self._command.plan(
            PlanRequest(
                source,
                quant,
                bare_is_ollama,
                str(self._folder),
                self.settings.ollama_registry,
                self.settings.trusted_hosts,
            )
        )

    def begin(self, planned: Planned, engine: EngineWish | None = None, *, force: bool = False) -> Download:
        """Fetch what was planned. What is being fetched already goes on; what was paused or failed, too.

        With `force` also a model that is larger than this machine's memory.

        Raises:
            InvalidRequest: the model is too large for this machine.
            StorageFull: the disk has no room for it.
            Conflict: something else of that name is being fetched.
            QueueFull: there are too many.
        """
        self._check_allowed()
        plan = planned.plan
        download_id = plan.name if engine is None else engine.engine_id
        old = self._downloads.get(download_id)
        if old is not None and (old.is_active or old.status is DownloadStatus.PAUSED):
            if old.plan.source != plan.source:
                raise Conflict(
                    f"{old.plan.source} is being fetched as '{download_id}' already", code="download_exists"
                )
            old.engine = engine or old.engine
            if not old.is_active:
                self._start(old)
            return old
        check_room(planned, force=force)
        if (
            sum(1 for each in self.list() if each.is_active or each.status is DownloadStatus.PAUSED)
            >= MAX_ACTIVE
        ):
            raise QueueFull(f"{MAX_ACTIVE} downloads go on or wait already")
        self._downloads.pop(download_id, None)
        download = Download(
            StoredDownload(download_id, plan, engine, DownloadStatus.DOWNLOADING, now_ms(), None, None)
        )
        self._downloads[download_id] = download
        self._forget_the_oldest()
        self._start(download)
        return download

    def _check_allowed(self) -> None:
        if self._closed:
            raise Draining("The server is shutting down")
        if self.settings.offline:
            raise Forbidden("Nothing is fetched here: the setting downloads.offline says so", code="offline")

    def _forget_the_oldest(self) -> None:
        ended = [each for each in self.list() if each.ended_ms is not None]
        for download in ended[: max(0, len(self._downloads) - MAX_KEPT)]:
            del self._downloads[download.id]

    # --- changing ---

    async def pause(self, download_id: str) -> Download:
        """Stop, and keep what is there.

        Raises:
            NotFound, Conflict: it is not being fetched.
        """
        download = self._expect(download_id, {DownloadStatus.DOWNLOADING}, "paused")
        await self._stop(download)
        self._set(download, DownloadStatus.PAUSED)
        return download

    def resume(self, download_id: str) -> Download:
        """Go on.

        Raises:
            NotFound, Conflict: it is neither paused nor did it fail.
        """
        stopped = {DownloadStatus.PAUSED, DownloadStatus.FAILED, DownloadStatus.CANCELLED}
        download = self._expect(download_id, stopped, "resumed")
        self._check_allowed()
        self._start(download)
        return download

    async def cancel(self, download_id: str) -> Download:
        """Stop, and remove what is there of files that are not whole.

        Raises:
            NotFound, Conflict: it has ended.
        """
        going = {DownloadStatus.DOWNLOADING, DownloadStatus.PAUSED, DownloadStatus.CREATING_ENGINE}
        download = self._expect(download_id, going, "cancelled")
        await self._cancel(download)
        return download

    async def remove(self, download_id: str) -> Download:
        """Forget it, having cancelled it where it goes on.

        Raises:
            NotFound: there is none of that id.
        """
        download = self.get(download_id)
        if download.status is not DownloadStatus.COMPLETED:
            await self._cancel(download)
        self._downloads.pop(download_id, None)
        self._save()
        return download

    async def cancel_all(self) -> Sequence[Download]:
        """Cancel all that go on or are paused."""
        going = [each for each in self.list() if each.is_active or each.status is DownloadStatus.PAUSED]
        for download in going:
            await self._cancel(download)
        return going

    def _expect(self, download_id: str, allowed: set[DownloadStatus], what: str) -> Download:
        download = self.get(download_id)
        if download.status not in allowed:
            raise Conflict(
                f"'{download_id}' cannot be {what}: it is {download.status.replace('_', ' ')}",
                code="download_busy",
            )
        return download

    async def _cancel(self, download: Download) -> None:
        await self._stop(download)
        others = (each for each in self.list() if each.is_active and each is not download)
        used = {file.path for each in others for file in each.plan.files}
        for file in download.plan.files:
            if file.path not in used:
                await in_thread(remove_part, Path(file.path))
        self._set(download, DownloadStatus.CANCELLED)

    async def _stop(self, download: Download) -> None:
        task = self._tasks.pop(download.id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    # --- carrying out ---

    def _start(self, download: Download) -> None:
        download.ended_ms = download.error = None
        self._set(download, DownloadStatus.DOWNLOADING)
        task = asyncio.create_task(self._run(download), name=f"download {download.id}")
        self._tasks[download.id] = task

    async def _run(self, download: Download) -> None:
        try:
            download.queued = self._places.locked()
            async with self._places:
                download.queued = False
                await self._fetch(download)
            if download.engine is not None:
                self._set(download, DownloadStatus.CREATING_ENGINE)
            await self.on_arrival(download)
        except KolosalError as exc:
            self._end(download, DownloadStatus.FAILED, exc.message)
        except Exception:
            log.exception("download.failed", extra={"download_id": download.id})
            self._end(download, DownloadStatus.FAILED, InternalError().message)
        else:
            self._end(download, DownloadStatus.COMPLETED)

    async def _fetch(self, download: Download) -> None:
        request = FetchRequest(download.plan, self.settings.ollama_registry, self.settings.trusted_hosts)

        def on_progress(said: FileProgress) -> None:
            now = self._clock()
            download.note(said, now)
            if now - self._told.get(download.id, -EVENT_S) >= EVENT_S:
                self._told[download.id] = now
                self._events.publish(
                    "download.progress",
                    download_id=download.id,
                    downloaded_bytes=download.completed_bytes,
                    total_bytes=download.total_bytes,
                )

        await self._command.fetch(request, on_progress)

    def _end(self, download: Download, status: DownloadStatus, error: str | None = None) -> None:
        self._tasks.pop(download.id, None)
        self._told.pop(download.id, None)
        download.error = error
        self._set(download, status)

    def _set(self, download: Download, status: DownloadStatus) -> None:
        download.status = status
        download.queued = False
        if status not in (DownloadStatus.DOWNLOADING, DownloadStatus.CREATING_ENGINE, DownloadStatus.PAUSED):
            download.ended_ms = now_ms()
        facts = {"download_id": download.id, "status": str(status), "source": download.plan.source}
        reason = {} if download.error is None else {"reason": download.error}
        self._events.publish("download.state", **facts, **reason)
        log.info("download.state", extra=facts | reason)
        download.note_change()
        self._save()

    # --- over restarts ---

    async def restore(self) -> None:
        """Take up what was there before the last stop, or kill. Raises nothing."""
        if self._file is None:
            return
        for stored in await self._file.restore():
            download = self._downloads[stored.id] = Download(stored)
            if download.is_active:
                self._start(download)

    async def close(self) -> None:
        """Stop all; what goes on does so after the next start. Idempotent."""
        self._closed = True
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._file is not None:
            await self._file.close()

    def _save(self) -> None:
        if self._file is not None and not self._closed:
            self._file.save([replace(each.stored) for each in self.list()])


def check_room(planned: Planned, *, force: bool = False) -> None:
    """Refuse what there is no room for.

    Raises:
        InvalidRequest: the machine's memory cannot hold the model, and nobody insists.
        StorageFull: the disk has no room.
    """
    plan = planned.plan
    if not planned.loadable and not force:
        raise InvalidRequest(
            f"{plan.source} has {plan.total_bytes / 1e9:.1f} GB, more than this machine has memory for: name a smaller"
            " quantisation, or fetch it all the same with force",
            param="source",
            code="model_too_large",
        )
    missing = max(0, plan.total_bytes - plan.present_bytes)
    if missing > planned.free_bytes:
        raise StorageFull(
            f"There is no room for {plan.source} in {Path(plan.files[0].path).parent}: it needs {missing / 1e9:.2f} GB more,"
            f" and {planned.free_bytes / 1e9:.2f} GB are free"
        )
