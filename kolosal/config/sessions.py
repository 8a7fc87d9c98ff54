"""The section `sessions:`: what WebSocket clients may use."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection, Variable


class SessionSettings(SettingsSection):
    """Bounds of sessions and their connections."""

    variable_prefix: ClassVar[str] = "SESSIONS_"

    max_count: Annotated[
        int,
        Field(
            ge=1, le=1_000_000, description="Sessions at most; the least recently used idle one goes first."
        ),
    ] = 1000
    max_connections: Annotated[
        int,
        Field(
            ge=1, le=100_000, description="WebSocket connections at the same time; more are closed with 1013."
        ),
    ] = 256
    max_message_size: Annotated[
        int,
        Variable("SESSIONS_MAX_MESSAGE_BYTES"),
        Field(
            ge=1024,
            le=1024**3,
            description="Bytes of one WebSocket message; a longer one is closed with 1009.",
        ),
    ] = 4 * 1024 * 1024
    max_legs: Annotated[
        int,
        Field(ge=1, le=1000, description="Times that one `generate` may call tools; then it must end."),
    ] = 5
    messages_per_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=100_000,
            allow_inf_nan=False,
            description="Messages a second that one WebSocket connection may send; one that keeps sending more is closed with 1008.",
        ),
    ] = 50.0
    ttl_s: Annotated[
        float,
        Field(
            ge=1,
            le=30 * 86_400,
            allow_inf_nan=False,
            description="Seconds without a connection after which a session is forgotten, and that a call waits for its result.",
        ),
    ] = 3600.0
