"""The section `activity:`: what is kept of requests for whoever looks at `/v1/activity` or the console."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection


class ActivitySettings(SettingsSection):
    """Rows of requests, and bodies where they are wanted."""

    variable_prefix: ClassVar[str] = "ACTIVITY_"

    requests: int = Field(default=10_000, ge=1, le=100_000)
    """Requests that are kept to look at, the last ones; some 600 bytes each."""
    capture_bytes: int = Field(default=0, ge=0, le=1024**3)
    """Bytes of requests' and answers' bodies that are kept in memory for operators to read, altogether; 0 keeps none."""
