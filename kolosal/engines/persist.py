"""The engines that were added at run time, kept in a file over restarts of the daemon.

Owns the file: written whole and swapped in atomically, so that a crash leaves the old or the new one; one that cannot be
read is set aside and never fatal. The same types as the HTTP body and the handshake, so the same bounds hold.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from kolosal.atomic_file import replace_file
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import EngineConfig

log = logging.getLogger(__name__)

FILE_NAME = "engines.json"

MAX_STORED = 1000
"""Engines that are kept; further ones live until the daemon stops."""

_MAX_FILE_BYTES = 512 * 1024 * 1024
"""A longer file is none that was written here: a thousand engines with the longest of templates are shorter."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredEngine:
    """One engine as it stands in the file."""

    config: EngineConfig
    rules: Rules


_entry: TypeAdapter[StoredEngine] = TypeAdapter(StoredEngine)


def load_stored(folder: Path) -> list[StoredEngine]:
    """The engines that were kept in a folder; none where there is no file. Blocks, and raises nothing.

    A file that is damaged is renamed, so that it can be looked at and is not written over. An entry that is not valid any
    more is left out, and the file copied aside.
    """
    path = folder / FILE_NAME
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError("it is too long")
        rows = _rows(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as exc:
        _set_aside(path, str(exc))
        return []
    engines = {one.config.engine_id: one for one in map(_parsed, rows[:MAX_STORED]) if one is not None}
    if len(engines) < len(rows):
        _set_aside(path, f"{len(rows) - len(engines)} of its {len(rows)} engines are not valid")
    return [*engines.values()]


def store(folder: Path, engines: Sequence[StoredEngine]) -> None:
    """Replace the file. Blocks until the disk has it.

    Raises:
        OSError: it cannot be written; the file there was is untouched.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    body = {"version": _VERSION, "engines": [*engines[:MAX_STORED]]}
    data = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    handle, name = tempfile.mkstemp(prefix=f"{FILE_NAME}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_file(Path(name), folder / FILE_NAME)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _rows(data: bytes) -> list[object]:
    body = orjson.loads(data)
    if (
        not isinstance(body, dict)
        or body.get("version") != _VERSION
        or not isinstance(body.get("engines"), list)
    ):
        raise ValueError(f"it is no list of engines of version {_VERSION}")
    rows: list[object] = body["engines"]
    return rows


def _parsed(row: object) -> StoredEngine | None:
    try:
        return _entry.validate_json(orjson.dumps(row), strict=True)
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]
        log.warning("engines.entry_not_valid", extra={"reason": f"{reason['loc']}: {reason['msg']}"})
        return None


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    log.warning("engines.file_set_aside", extra={"path": str(aside), "reason": reason})
    try:
        path.replace(aside)
    except OSError as exc:
        log.warning("engines.file_not_moved", extra={"path": str(path), "reason": exc.strerror})


def _sync_folder(folder: Path) -> None:
    """Have the disk know the new name, where folders can be opened for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class EngineFileWriter:
    """Writes the file in a thread: one write at a time, always of the latest state. Used on the event loop only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._latest: list[StoredEngine] | None = None
        self._task: asyncio.Task[None] | None = None

    def save(self, engines: list[StoredEngine]) -> None:
        """Have the file say this soon. A disk that fails is logged; the engines run all the same."""
        self._latest = engines
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name="keep engines")

    async def flush(self) -> None:
        """Wait until all is written."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _write(self) -> None:
        while self._latest is not None:
            engines, self._latest = self._latest, None
            try:
                await asyncio.to_thread(store, self._folder, engines)
            except OSError as exc:
                log.warning(
                    "engines.not_kept", extra={"path": str(self._folder / FILE_NAME), "reason": exc.strerror}
                )
