"""Log lines as events: a fixed name and fields, on stderr and, where one is wanted, in a file that is rotated.

`log.info("engine.loaded", extra={"engine_id": "a", "load_s": 1.2})` is written as
`2026-11-20 12:00:00 INFO engine.loaded engine_id=a load_s=1.2`, or as
`{"time":"2026-11-20T12:00:00.000Z","level":"info","event":"engine.loaded","engine_id":"a","load_s":1.2}`. A line that is
written in the course of a request has its `request_id`. Prompts, answers and keys are never logged.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import orjson

from kolosal.config.logging import LoggingSettings
from kolosal.observe.context import REQUEST_ID

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

    Raises:
        OSError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.file is not None:
        handlers.append(
            RotatingFileHandler(
                Path(settings.file).expanduser(),
                maxBytes=settings.file_bytes,
                backupCount=settings.file_count,
                encoding="utf-8",
                errors="replace",
            )
        )
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if settings.format == "json" else EventFormatter())
        handler.addFilter(_add_request_id)
    logging.basicConfig(level=settings.level.upper(), handlers=handlers, force=True)


def _add_request_id(record: logging.LogRecord) -> bool:
    """Name the request in whose course a line is written, where the line does not."""
    if (request_id := REQUEST_ID.get()) is not None and not hasattr(record, "request_id"):
        record.request_id = request_id
    return True


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or not text.isprintable() or any(char in " \"'=" for char in text) else text
