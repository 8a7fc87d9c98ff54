"""Log lines as events: a fixed name and fields, on stderr and, where one is wanted, in a file that is rotated.

`log.info("engine.loaded", extra={"engine_id": "a", "load_s": 1.2})` is written as
`2026-11-20 12:00:00 INFO engine.loaded engine_id=a load_s=1.2`, or as
`{"time":"2026-11-20T12:00:00.000Z","level":"info","event":"engine.loaded","engine_id":"a","load_s":1.2}`. A line that is
written in the course of a request has its `request_id` and, where keys are used, the name of its `key`. Prompts, answers and
keys themselves are never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import orjson

from kolosal.config.logging import LoggingSettings
from kolosal.files.regular import open_regular
from kolosal.observe.context import REQUEST
from kolosal.observe.logtail import LogTail

_LIBRARIES = frozenset(
    {"aiosqlite", "alembic", "asyncio", "asyncpg", "httpcore", "httpx", "huggingface_hub", "sqlalchemy"}
)
"""What they write below a warning is for those who debug them."""

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """One line an event: time, level, name, then the fields given as `extra` in their order."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        fields = (
            f"{key}={_quoted(value)}" for key, value in vars(record).items() if key not in _STANDARD_FIELDS
        )
        return " ".join((super().formatMessage(record), *fields))


class JsonFormatter(logging.Formatter):
    """One JSON object an event and line: time (UTC), level, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:  # a lone surrogate, or an integer of more than 64 bits
            plain = {key: str(value).encode("ascii", "backslashreplace") for key, value in line.items()}
            return orjson.dumps({key: value.decode() for key, value in plain.items()}).decode()


def configure_logging(settings: LoggingSettings) -> None:
    """Send all log lines of this process to stderr, and to a file if there is one. Called once, before the daemon starts.

    Of libraries, warnings and errors only: the lines with which they debug have values of statements in them, and so prompts.

    Raises:
        OSError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.file is not None:
        path = Path(settings.file).expanduser()
        with contextlib.suppress(
            FileNotFoundError
        ):  # a pipe would wait for a reader, and a device cannot be put aside
            open_regular(path).close()
        handlers.append(
            _LogFile(
                path,
                maxBytes=settings.file_bytes,
                backupCount=settings.file_count,
                encoding="utf-8",
                errors="replace",
            )
        )
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if settings.format == "json" else EventFormatter())
        handler.addFilter(_add_request)
        handler.addFilter(_is_wanted)
    logging.basicConfig(level=settings.level.upper(), handlers=handlers, force=True)


def log_file_problem() -> str | None:
    """Why log lines do not get into their file now, as a sentence; None where they do."""
    files = (handler for handler in logging.getLogger().handlers if isinstance(handler, _LogFile))
    return next((file.problem for file in files if file.problem), None)


class _LogFile(RotatingFileHandler):
    """A file on a disk that may be full. Lines that it does not take are on stderr all the same; the reason is there once."""

    problem: str | None = None
    _failed = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        if not self._failed:
            self.problem = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        if self.problem is None and sys.stderr is not None:
            sys.stderr.write(f"The log file cannot be written: {error.strerror or error}\n")
        self.problem = f"The log file cannot be written: {error.strerror or error}"


@contextmanager
def log_lines_kept(tail: LogTail) -> Iterator[None]:
    """Keep log lines in `tail` too, for whoever asks the daemon for them. On a running event loop, which the tail is used on."""
    handler = _TailHandler(asyncio.get_running_loop(), tail)
    handler.setFormatter(EventFormatter())
    handler.addFilter(_add_request)
    root = logging.getLogger()
    if not root.handlers:  # then Python shows warnings on stderr, but no longer once there is a handler
        root.addHandler(logging.lastResort or logging.NullHandler())
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        tail.ring.close()


class _TailHandler(logging.Handler):
    """Hands lines over to the event loop, since any thread may log."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tail: LogTail) -> None:
        super().__init__()
        self._loop = loop
        self._tail = tail

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode(errors="replace") + b"\n"
        with suppress(RuntimeError):  # the loop is closed: the daemon has ended
            self._loop.call_soon_threadsafe(self._tail.feed, line)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a line is more than what a library says to those who debug it."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in _LIBRARIES


def _add_request(record: logging.LogRecord) -> bool:
    """Name the request in whose course a line is written, where the line does not, and its API key."""
    if (request := REQUEST.get()) is not None:
        if not hasattr(record, "request_id"):
            record.request_id = request.request_id
        if request.key_name is not None:
            record.key = request.key_name
    return True


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or not text.isprintable() or any(char in " \"'=" for char in text) else text
