"""Queries of the URLs of a kept response, and the page of items that one of them asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from kolosal.errors import InvalidRequest
from kolosal.routes.openai.responses.body import Include
from kolosal.routes.openai.responses.input_messages import ItemId
from kolosal.routes.openai.responses.items import Item
from kolosal.sampling import TokenCount


class ResponseQuery(BaseModel):
    """The query of one response."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    include: Include = ()
    stream: bool | None = None
    """Must be false: a response that has ended is given whole."""
    starting_after: TokenCount | None = None
    """Must be left out, as `stream`."""
    include_obfuscation: bool | None = None
    """Ignored."""


class ItemsQuery(BaseModel):
    """The query of a list of items."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    """Items of one page."""
    order: Literal["asc", "desc"] = "desc"
    """`desc` gives the last item first."""
    after: ItemId | None = None
    """The last item of the page before."""
    include: Include = ()


class InputItemList(TypedDict):
    """A page of items."""

    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page_of(items: Sequence[Item], query: ItemsQuery) -> InputItemList:
    """One page of a list of items."""
    ordered = list(items) if query.order == "asc" else list(reversed(items))
    start = 0
    if query.after is not None:
        ids = [item["id"] for item in ordered]
        if query.after not in ids:
            raise InvalidRequest(
                f"after must be an item of this list, not {query.after[:60]!r}", param="after"
            )
        start = ids.index(query.after) + 1
    page = ordered[start : start + query.limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + query.limit < len(ordered),
    }
