"""The section `rpc:`: bounds of conversations over `/rpc`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection


class RpcSettings(SettingsSection):
    """Bounds of JSON-RPC."""

    variable_prefix: ClassVar[str] = "RPC_"

    max_iterations: int = Field(default=30, ge=1, le=10_000)
    """Times that results of tools may be sent back in one conversation over `/rpc`; then it must end."""
