"""The section `sessions:`: what WebSocket clients may use."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, FiniteFloat

from kolosal.config.section import SettingsSection, Variable


class SessionSettings(SettingsSection):
    """Bounds of sessions and their connections."""

    variable_prefix: ClassVar[str] = "SESSIONS_"

    max_count: int = Field(default=1000, ge=1, le=1_000_000)
    """Sessions at most; the least recently used idle one goes first."""
    max_connections: int = Field(default=256, ge=1, le=100_000)
    """WebSocket connections at the same time; more are closed with 1013."""
    max_message_size: Annotated[int, Variable("SESSIONS_MAX_MESSAGE_BYTES")] = Field(
        default=4 * 1024 * 1024, ge=1024, le=1024**3
    )
    """Bytes of one WebSocket message; a longer one is closed with 1009."""
    max_legs: int = Field(default=5, ge=1, le=1000)
    """Times that one `generate` may call tools; then it must end."""
    messages_per_s: FiniteFloat = Field(default=50.0, ge=0.1, le=100_000)
    """Messages a second that one WebSocket connection may send; one that keeps sending more is closed with 1008."""
    ttl_s: FiniteFloat = Field(default=3600.0, ge=1, le=30 * 86_400)
    """Seconds without a connection after which a session is forgotten, and that a call waits for its result."""
    keep_history: bool = False
    """Whether sessions, and what was said in them, are kept in the store: then a `generate` without `history` goes on with it, also after
    a restart. Each `generate` keeps a session for `ttl_s`."""
