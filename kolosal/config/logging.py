"""The section `logging:`: what the daemon tells of itself, and where."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kolosal.config.section import FilePath, SettingsSection, Variable


class LoggingSettings(SettingsSection):
    """Log lines and traces."""

    variable_prefix: ClassVar[str] = "LOG_"

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="The least important events that are logged."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        Field(description="How log lines look: for people, or one JSON object a line."),
    ] = "text"
    file: Annotated[
        FilePath | None,
        Field(
            description="File that log lines are also written to, in an existing folder; empty: stderr only."
        ),
    ] = None
    file_bytes: Annotated[
        int,
        Field(
            ge=4096,
            le=1024**4,
            description="Bytes after which the log file is put aside and a new one begun.",
        ),
    ] = 10 * 1024 * 1024
    file_count: Annotated[
        int,
        Field(ge=1, le=1000, description="Log files put aside that are kept, named .1, .2 and so on."),
    ] = 5
    """At least one: with none Python would never rotate."""
    traces_url: Annotated[
        str | None,
        Variable("TRACES_URL"),
        Field(
            max_length=2048,
            pattern=r"^https?://[^\s]+$",
            description="Where to send a trace of each generation by OTLP over HTTP; needs the extra otel; empty: nowhere.",
        ),
    ] = None
    access_log: Annotated[
        bool, Variable("ACCESS_LOG"), Field(description="Log one line for each HTTP request.")
    ] = True
