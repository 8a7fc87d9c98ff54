"""The query of a URL, typed."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from kolosal.http.decode import complaint

Q = TypeVar("Q", bound=BaseModel)

_LISTS = frozenset({"include"})
"""Parameters that may come several times, each with one value."""


def read_query(request: Request, query_type: type[Q]) -> Q:
    """A request's query. Of a parameter that comes several times the last value counts; `name[]` is `name`."""
    query, fields = request.query_params, dict[str, Any]()
    for name in query_type.model_fields:
        values = [*query.getlist(name), *query.getlist(f"{name}[]")]
        if values:
            fields[name] = tuple(values) if name in _LISTS else values[-1]
    try:
        return query_type.model_validate(fields)
    except ValidationError as exc:
        raise complaint(exc.errors(include_url=False)[0]) from None
