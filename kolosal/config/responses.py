"""The section `responses:`: what the Responses API keeps, and for how long."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection


class ResponseSettings(SettingsSection):
    """Bounds of kept responses."""

    variable_prefix: ClassVar[str] = "RESPONSES_"

    max_count: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="Responses of the Responses API to keep at most; the least recently used go first.",
        ),
    ] = 1000
    max_bytes: Annotated[
        int,
        Field(
            ge=0,
            le=64 * 1024**3,
            description="Bytes of memory for kept responses, each with the conversation before it.",
        ),
    ] = 64 * 1024 * 1024
    ttl_s: Annotated[
        float,
        Field(
            ge=1,
            le=30 * 86_400,
            allow_inf_nan=False,
            description="Seconds after which a kept response is forgotten.",
        ),
    ] = 86_400.0
