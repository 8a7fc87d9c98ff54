"""Fetching a model where no daemon runs: the same fetcher, with this command as its owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from kolosal.commands.errors import CommandError
from kolosal.commands.pull_view import PullPlan, PullProgress
from kolosal.config.downloads import DownloadSettings
from kolosal.downloads.download import Download, DownloadStatus
from kolosal.downloads.jobs import Downloads
from kolosal.downloads.messages import Planned
from kolosal.downloads.process import FetcherCommand
from kolosal.errors import KolosalError


class LocalPull:
    """One model, fetched by this process. See `pull.Puller`."""

    def __init__(self, settings: DownloadSettings, folder: Path | None, command: FetcherCommand) -> None:
        self._downloads = Downloads(settings, folder, command)
        self._planned: Planned | None = None

    async def plan(self, source: str, quant: str | None) -> PullPlan:
        """See `Puller`."""
        try:
            self._planned = planned = await self._downloads.plan(source, quant)
        except KolosalError as exc:
            raise CommandError(exc.message) from exc
        plan = planned.plan
        return PullPlan(
            plan.source,
            plan.name,
            plan.total_bytes,
            min(plan.present_bytes, plan.total_bytes),
            planned.free_bytes,
            plan.model_path,
            planned.comfortable,
            planned.loadable,
        )

    async def fetch(self, plan: PullPlan, *, force: bool) -> AsyncGenerator[PullProgress, None]:
        """See `Puller`."""
        assert self._planned is not None  # noqa: S101 - a plan comes from here
        assert plan.source == self._planned.plan.source  # noqa: S101
        try:
            download = self._downloads.begin(self._planned, force=force)
        except KolosalError as exc:
            raise CommandError(exc.message) from exc
        try:
            while download.is_active:
                changed = download.changed
                yield _progress(download)
                await changed.wait()
        finally:
            await asyncio.shield(self._downloads.close())
        if download.status is not DownloadStatus.COMPLETED:
            raise CommandError(download.error or f"The download was {download.status}")
        yield _progress(download)


def _progress(download: Download) -> PullProgress:
    speed = download.speed.bytes_per_s(time.monotonic())
    return PullProgress(download.completed_bytes, download.total_bytes, speed, download.model)
