"""Log lines as events: a fixed name and fields, on stderr and where asked for in a file.

`log.info("engine.loaded", extra={"engine_id": "a", "load_s": 1.2})` is written as
`2026-11-20 12:00:00 INFO engine.loaded engine_id=a load_s=1.2`. Prompts, answers and keys are never logged.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_LOG_BYTES = 10 * 1024 * 1024
"""Bytes of a log file; a longer one is renamed, and a new one begun."""

OLD_LOG_FILES = 5
"""How many renamed ones are kept: `.1` is the newest."""

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


def configure_logging(level: str, file: Path | None = None) -> None:
    """Send all log lines of this process to stderr, and to a file that is rotated, in the one format.

    Called once, before the daemon starts.

    Raises:
        OSError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(
            RotatingFileHandler(
                file, maxBytes=MAX_LOG_BYTES, backupCount=OLD_LOG_FILES, encoding="utf-8", errors="replace"
            )
        )
    for handler in handlers:
        handler.setFormatter(EventFormatter())
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(char.isspace() or char in "\"'=" for char in text) else text
