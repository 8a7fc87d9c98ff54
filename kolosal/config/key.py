"""The mark by which a setting says where it stands in the YAML file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """Where a setting stands in the YAML file, as `section.key`."""

    name: str
