"""Lists a page at a time, as the OpenAI API has them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class PageRange:
    """Which part of a list is asked for."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    """`desc` has what was made last first."""
    after: str | None = None
    """The id of the object that the page follows."""
    before: str | None = None
    """The id of the object that the page ends before; without `after` the page is the one right before it."""


@dataclass(frozen=True, slots=True)
class StorePage:
    """A part of a list."""

    rows: Sequence[StoredRow]
    has_more: bool
    """Whether the list goes on beyond it."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One object."""

    seq: int
    """Its place in the order in which the objects of the whole store were made."""
    id: str
    data: Mapping[str, Any]
