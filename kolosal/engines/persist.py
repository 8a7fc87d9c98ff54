"""The engines that were added at run time, kept in a file over restarts of the daemon.

Owns the file: one daemon writes it, and only after it has read it. What cannot be written is tried again until it can, and
`problem` says so meanwhile; a file that cannot be read is set aside and never fatal. The same types as the HTTP body and the
handshake, so the same bounds hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import EngineConfig
from kolosal.files.atomic import FileLock, write_file
from kolosal.files.deadline import LIMIT_S, NoAnswer
from kolosal.files.in_thread import in_thread
from kolosal.files.regular import read_regular

log = logging.getLogger(__name__)

FILE_NAME = "engines.json"

MAX_STORED = 1000
"""Engines that are kept; further ones live until the daemon stops, and `problem` says so."""

RETRY_DELAYS_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Before a write that failed is tried again; the last one for all further tries."""

_MAX_FILE_BYTES = 512 * 1024 * 1024
"""A longer file is none that was written here: a thousand engines with the longest of templates are shorter."""

_MAX_DAMAGED = 20
"""Files that are set aside beside each other."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredEngine:
    """One engine as it stands in the file."""

    config: EngineConfig
    rules: Rules


@cache
def _entry() -> TypeAdapter[StoredEngine]:
    """Made when first used, as it takes milliseconds."""
    return TypeAdapter(StoredEngine)


@dataclass(frozen=True, slots=True)
class StoredEngines:
    """What a file said."""

    engines: list[StoredEngine]
    problem: str | None = None
    """What of it is lost until somebody looks at the file that was set aside."""


class NotSetAside(OSError):
    """A file that cannot be read cannot be moved either: writing it would lose what it holds."""


def load_stored(folder: Path) -> StoredEngines:
    """The engines that were kept in a folder; none where there is no file. Blocks.

    A file that cannot be read is renamed, so that it can be looked at and is not written over. An entry that is not valid any
    more is left out, and the file set aside.

    Raises:
        NotSetAside: it cannot be renamed.
    """
    path = folder / FILE_NAME
    try:
        rows = _rows(read_regular(path, _MAX_FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return StoredEngines([])
    except (OSError, ValueError) as exc:
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        return StoredEngines([], _set_aside(path, f"it cannot be read: {reason}"))
    engines = {one.config.engine_id: one for one in map(_parsed, rows[:MAX_STORED]) if one is not None}
    if len(engines) < len(rows):
        problem = _set_aside(path, f"{len(rows) - len(engines)} of its {len(rows)} engines are not valid")
        return StoredEngines([*engines.values()], problem)
    return StoredEngines([*engines.values()])


def store(folder: Path, engines: Sequence[StoredEngine]) -> None:
    """Replace the file. Blocks until the disk has it.

    Raises:
        OSError: it cannot be written; the file there was is untouched.
    """
    body = {"version": _VERSION, "engines": [*engines[:MAX_STORED]]}
    data = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_file(folder / FILE_NAME, data)


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
        return _entry().validate_json(orjson.dumps(row), strict=True)
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]
        log.warning("engines.entry_not_valid", extra={"reason": f"{reason['loc']}: {reason['msg']}"})
        return None


def _set_aside(path: Path, reason: str) -> str:
    """Rename a file, never over another one that was set aside; what happened as a sentence."""
    names = itertools.chain([".damaged"], (f".damaged.{n}" for n in range(2, _MAX_DAMAGED + 1)))
    free = (each for each in (path.with_name(path.name + name) for name in names) if not each.exists())
    aside = next(free, None)
    try:
        if aside is None:
            raise OSError(0, f"{_MAX_DAMAGED} such files are there already")
        path.replace(aside)
    except OSError as exc:
        log.error("engines.file_not_moved", extra={"path": str(path), "reason": exc.strerror})  # noqa: TRY400
        raise NotSetAside(
            exc.errno, f"{path.name}: {reason}, and it cannot be renamed: {exc.strerror}"
        ) from exc
    log.warning("engines.file_set_aside", extra={"path": str(aside), "reason": reason})
    return f"{path.name} was set aside as {aside.name}, because {reason}"


class EngineFile:
    """The file of one daemon. Writes in a thread: one write at a time, always of the latest state, until the disk takes it.

    Used on the event loop only. `restore` comes first, so that nothing is written over that was never read.
    """

    def __init__(
        self, folder: Path, *, delays_s: Sequence[float] = RETRY_DELAYS_S, limit_s: float = LIMIT_S
    ) -> None:
        """`limit_s`: how long the disk may take for one write."""
        self._folder = folder
        self._delays_s = delays_s
        self._limit_s = limit_s
        self._lock = FileLock(folder / FILE_NAME)
        self._refusal: str | None = None  # why the file is not ours to write
        self._unsaved: list[StoredEngine] | None = None
        self._task: asyncio.Task[None] | None = None
        self._try_now = asyncio.Event()
        self._closing = False
        self._writing = threading.Lock()
        self._read_problem: str | None = None
        self._write_problem: str | None = None
        self.failures = 0
        """Writes that failed."""

    @property
    def problem(self) -> str | None:
        """What is wrong now, as a sentence without paths; None where all engines are saved."""
        return self._write_problem or self._read_problem

    @property
    def is_saved(self) -> bool:
        """Whether the disk has all engines."""
        return self._unsaved is None

    async def restore(self) -> list[StoredEngine]:
        """The engines of before; from now on the file is this daemon's. Raises nothing."""
        try:
            return await in_thread(self._open)
        except OSError as exc:
            self._refuse(exc.strerror or str(exc))
            return []

    def _open(self) -> list[StoredEngine]:
        try:
            self._lock.take()
        except BlockingIOError:
            self._refuse("another daemon has its engines in the same folder")
        except OSError as exc:  # where nothing can be written yet, something may be read
            log.warning("engines.not_locked", extra={"path": str(self._folder), "reason": exc.strerror})
        found = load_stored(self._folder)
        self._read_problem = found.problem
        return found.engines

    def _refuse(self, reason: str) -> None:
        self._refusal = reason
        self._write_problem = _not_saved(reason)
        log.error("engines.file_not_ours", extra={"path": str(self._folder / FILE_NAME), "reason": reason})

    def save(self, engines: list[StoredEngine]) -> None:
        """Have the file say this soon."""
        self._unsaved = engines
        self._try_now.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name="save engines")

    async def close(self) -> bool:
        """Try once more where something is not saved; whether the disk has everything. To be called once, at the end."""
        self._closing = True
        self._try_now.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        self._lock.close()
        return self.is_saved

    async def _write(self) -> None:
        delays = itertools.chain(self._delays_s, itertools.repeat(self._delays_s[-1]))
        while (engines := self._unsaved) is not None:
            self._try_now.clear()
            is_last_try = self._closing
            try:
                await in_thread(self._store, engines, limit_s=self._limit_s)
            except Exception as exc:  # noqa: BLE001 - whatever it is, what comes later must be saved all the same
                delay_s = next(delays)
                self._note_failure(exc, delay_s)
                if is_last_try:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._try_now.wait(), delay_s)
            else:
                self._note_success(engines)

    def _store(self, engines: list[StoredEngine]) -> None:
        if self._refusal is not None:
            raise PermissionError(0, self._refusal)
        if not self._writing.acquire(
            blocking=False
        ):  # it was given up, but may come back and replace a newer file
            raise NoAnswer("the disk has not answered since the last try")
        try:
            store(self._folder, engines)
        finally:
            self._writing.release()

    def _note_failure(self, error: Exception, delay_s: float) -> None:
        reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
        self.failures += 1
        self._write_problem = _not_saved(reason)
        fields = {"path": str(self._folder / FILE_NAME), "reason": reason}
        log.error("engines.not_saved", extra=fields | {"retry_in_s": None if self._closing else delay_s})

    def _note_success(self, engines: list[StoredEngine]) -> None:
        if self._unsaved is engines:
            self._unsaved = None
        if self._write_problem is not None:
            log.info("engines.saved", extra={"path": str(self._folder / FILE_NAME)})
        self._write_problem = None
        if len(engines) > MAX_STORED:
            self._write_problem = _not_saved(f"there are {len(engines)}, and {MAX_STORED} fit into the file")


def _not_saved(reason: str) -> str:
    return f"Engines added at run time are not saved: {reason}"
