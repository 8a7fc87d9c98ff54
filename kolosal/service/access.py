"""Whether the account of a service can read what it is started from. Decides on what was found; `chain_of` does the looking."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath


@dataclass(frozen=True, slots=True)
class PathPart:
    """A file or a folder on the way to it."""

    path: str
    mode: int


def chain_of(path: Path) -> list[PathPart]:
    """The folders on the way to a file and to what its links lead to, then the file."""
    parts: dict[str, PathPart] = {}
    for each in (path.absolute(), path.resolve()):
        for step in (*reversed(each.parents), each):
            parts[str(step)] = PathPart(str(step), step.stat().st_mode)
    return [*parts.values()]


def closed_to_others(parts: Iterable[PathPart]) -> str | None:
    """The first part that keeps out users who are neither its owner nor of its group; None where all may read."""
    for part in parts:
        needed = stat.S_IXOTH if stat.S_ISDIR(part.mode) else stat.S_IROTH
        if not part.mode & needed:
            return part.path
    return None


def within_a_profile(path: PureWindowsPath, profiles: PureWindowsPath) -> PureWindowsPath | None:
    r"""The profile of a user (`C:\Users\name`) that a path lies in: accounts of services may not look into it."""
    if profiles not in path.parents:
        return None
    profile = PureWindowsPath(*path.parts[: len(profiles.parts) + 1])
    return None if profile.name.casefold() in ("public", "all users", "default") else profile
