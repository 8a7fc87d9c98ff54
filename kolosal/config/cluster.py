"""The section `cluster:`: the Ray cluster whose machines engines may be placed on."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection, Variable


class ClusterSettings(SettingsSection):
    """Other machines than this one."""

    variable_prefix: ClassVar[str] = "CLUSTER_"

    address: Annotated[str | None, Variable("CLUSTER")] = Field(default=None, min_length=1, max_length=256)
    """Ray cluster to join as its head, `HOST:PORT`, or `auto` for the one that was started on this machine; unless given, none is joined."""
