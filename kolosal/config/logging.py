"""The section `logging:`: what the daemon tells of itself, and where."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kolosal.config.section import FilePath, SettingsSection, Variable


class LoggingSettings(SettingsSection):
    """Log lines and traces."""

    variable_prefix: ClassVar[str] = "LOG_"

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important events that are logged."""
    format: Literal["text", "json"] = "text"
    """How log lines look: for people, or one JSON object a line."""
    file: FilePath | None = None
    """File that log lines are also written to, in an existing folder; empty: stderr only."""
    file_bytes: int = Field(default=10 * 1024 * 1024, ge=4096, le=1024**4)
    """Bytes after which the log file is put aside and a new one begun."""
    # at least one, because with none Python never rotates
    file_count: int = Field(default=5, ge=1, le=1000)
    """Log files put aside that are kept, named .1, .2 and so on."""
    traces_url: Annotated[str | None, Variable("TRACES_URL")] = Field(
        default=None, max_length=2048, pattern=r"^https?://[^\s]+$"
    )
    """Where to send a trace of each generation by OTLP over HTTP; needs the extra otel; empty: nowhere."""
    access_log: Annotated[bool, Variable("ACCESS_LOG")] = True
    """Log one line for each HTTP request."""
