"""The section `responses:`: what the Responses API keeps, and for how long."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, FiniteFloat

from kolosal.config.section import SettingsSection


class ResponseSettings(SettingsSection):
    """Bounds of kept responses."""

    variable_prefix: ClassVar[str] = "RESPONSES_"

    max_count: int = Field(default=1000, ge=0, le=100_000)
    """Responses of the Responses API that one API key may have kept; what was kept or followed up least recently goes first."""
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=0, le=64 * 1024**3)
    """Bytes of the store for the kept responses of one API key, with their conversations."""
    ttl_s: FiniteFloat = Field(default=86_400.0, ge=1, le=30 * 86_400)
    """Seconds after which a kept response is forgotten."""
