"""What can be asked of a kept response by the query of its URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams
from typing_extensions import TypedDict

from kolosal.errors import InvalidRequest
from kolosal.http.decode import complaint
from kolosal.routes.openai.responses.body import Include
from kolosal.routes.openai.responses.input_items import ItemId
from kolosal.routes.openai.responses.items import Item
from kolosal.sampling import MAX_TOKENS_LIMIT

_LISTS = frozenset({"include"})
"""Parameters that may be given several times."""


class ResponseQuery(BaseModel):
    """The query of one response."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include: Include = ()
    stream: bool | None = None
    """Must be false: a response that has ended is given whole."""
    starting_after: Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)] | None = None
    """Must be left out, as `stream`."""
    include_obfuscation: bool | None = None
    """Ignored."""


class ItemsQuery(BaseModel):
    """The query of a list of items."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    """Items of one page."""
    order: Literal["asc", "desc"] = "desc"
    """`desc` gives the last item first."""
    after: ItemId | None = None
    """The last item of the page before."""
    include: Include = ()


Q = TypeVar("Q", bound=BaseModel)


def read_query(query: QueryParams, query_type: type[Q]) -> Q:
    """A URL's query, typed.

    Raises:
        InvalidRequest: a parameter is mistyped or out of range.
    """
    fields: dict[str, Any] = {}
    for name in query_type.model_fields:
        values = [*query.getlist(name), *query.getlist(f"{name}[]")]
        if values:
            fields[name] = tuple(values) if name in _LISTS else values[-1]
    try:
        return query_type.model_validate(fields)
    except ValidationError as exc:
        raise complaint(exc.errors(include_url=False)[0]) from None


class InputItemList(TypedDict):
    """A page of items."""

    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page_of(items: Sequence[Item], query: ItemsQuery) -> InputItemList:
    """One page of a list of items.

    Raises:
        InvalidRequest: `after` is none of them.
    """
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
