"""Lists of what is kept: what their URLs may ask for, and how a page looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from kolosal.store.pages import PageRange, StorePage


class ListQuery(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    """Objects of one page."""
    order: Literal["asc", "desc"] = "desc"
    """`desc` has what was made last first."""
    after: Annotated[str, Field(max_length=64)] | None = None
    """The id of the last object of the page before."""
    before: Annotated[str, Field(max_length=64)] | None = None
    """The id of the first object of the page after."""

    @property
    def part(self) -> PageRange:
        """The part of the list."""
        return PageRange(self.limit, self.order, self.after, self.before)


class ObjectList(TypedDict):
    """A page of a list."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(TypedDict):
    """An object that was deleted."""

    id: str
    object: str
    deleted: Literal[True]


def object_list(page: StorePage, shown: Callable[[Mapping[str, Any]], Any] = lambda data: data) -> Any:
    """A page as it is shown, of whatever objects it has."""
    data = [shown(row.data) for row in page.rows]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page.has_more,
    }


def deleted(object_id: str, kind: str) -> Deleted:
    """What is said of an object that was deleted."""
    return {"id": object_id, "object": kind, "deleted": True}
