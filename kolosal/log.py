"""Log lines as events: a fixed name and fields, on stderr.

`log.info("engine.loaded", extra={"engine_id": "a", "load_s": 1.2})` is written as
`2026-11-20 12:00:00 INFO engine.loaded engine_id=a load_s=1.2`. Prompts, answers and keys are never logged.
"""

from __future__ import annotations

import logging
import sys

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


def configure_logging(level: str) -> None:
    """Send all log lines of this process to stderr in the one format. Called once, before the daemon starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(char.isspace() or char in "\"'=" for char in text) else text
