"""The file of the downloads, kept over restarts: one daemon's, written whole or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import ValidationError

from kolosal.downloads.download import StoredDownload, stored_adapter
from kolosal.files.atomic import FileLock, write_file
from kolosal.files.in_thread import in_thread
from kolosal.files.regular import read_regular

log = logging.getLogger(__name__)

FILE_NAME = "downloads.json"
MAX_KEPT = 200
"""Downloads that are remembered, ended ones among them."""

_MAX_FILE_BYTES = 64 * 1024 * 1024


class DownloadFile:
    """Used on the event loop only; writes in a thread, always the latest state. A file that cannot be read is begun anew: what it
    named can be asked for again, and goes on where it was."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = FileLock(self._path)
        self._is_ours = False
        self._unsaved: Sequence[StoredDownload] | None = None
        self._task: asyncio.Task[None] | None = None

    async def restore(self) -> list[StoredDownload]:
        """What was kept; from now on the file is this daemon's. Raises nothing."""
        try:
            await in_thread(self._lock.take)
            self._is_ours = True
            rows = await in_thread(_rows, self._path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as exc:
            log.warning("downloads.not_restored", extra={"path": str(self._path), "reason": str(exc)})
            return []
        found = []
        for row in rows[:MAX_KEPT]:
            try:
                found.append(stored_adapter().validate_json(orjson.dumps(row), strict=True))
            except ValidationError as exc:
                reason = exc.errors(include_url=False, include_input=False)[0]
                log.warning(
                    "downloads.entry_not_valid", extra={"reason": f"{reason['loc']}: {reason['msg']}"}
                )
        return found

    def save(self, downloads: Sequence[StoredDownload]) -> None:
        """Have the file say this soon."""
        if not self._is_ours:
            return
        self._unsaved = downloads
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name="save downloads")

    async def _write(self) -> None:
        while (downloads := self._unsaved) is not None:
            self._unsaved = None
            data = orjson.dumps({"version": 1, "downloads": [*downloads]}, option=orjson.OPT_INDENT_2)
            try:
                await in_thread(write_file, self._path, data)
            except OSError as exc:
                log.error("downloads.not_saved", extra={"path": str(self._path), "reason": exc.strerror})  # noqa: TRY400

    async def close(self) -> None:
        """Finish writing. To be called once, at the end."""
        if self._task is not None:
            await asyncio.wait({self._task})
        self._lock.close()


def _rows(path: Path) -> list[object]:
    body = orjson.loads(read_regular(path, _MAX_FILE_BYTES))
    rows = body.get("downloads") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise ValueError("it is no list of downloads")  # noqa: TRY004 - as orjson says what is no JSON
    return rows
