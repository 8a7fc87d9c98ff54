"""Whose work is being done: the request at hand, for log lines, events, traces and the activity.

A context variable, because tasks inherit it: what a request starts knows the request.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kolosal.errors import KolosalError
    from kolosal.observe.activity import OpenRequest


@dataclass(slots=True, eq=False)
class RequestContext:
    """One HTTP request or WebSocket connection, and what becomes known of it as it goes on."""

    request_id: str
    """Its `X-Request-Id`."""
    path: str = ""
    trace_parent: str | None = None
    """The header `traceparent`, as it came."""
    dialect: str = ""
    """The group of its endpoint."""
    key_id: str | None = None
    key_name: str | None = None
    """The API key that it was let in with; None where no keys are used."""
    model: str | None = None
    """What it asked for by name."""
    call_tokens: int = 0
    """Tokens that were computed for it besides generating: of texts to embed or rank."""
    error: KolosalError | None = None
    """What it was answered instead of a result."""
    unenforced: list[str] = field(default_factory=list)
    """Places in its JSON schemas that are not enforced, the first ones: the field and, in it, a JSON pointer."""
    open_request: OpenRequest | None = None
    """Where its generations are gathered, while it goes on."""


REQUEST: ContextVar[RequestContext | None] = ContextVar("kolosal_request", default=None)
"""None outside of a request."""


MAX_UNENFORCED = 64
"""Places that a request's answer can tell."""


def note_unenforced(place: str) -> None:
    """This place in a schema of the request at hand is not enforced."""
    request = REQUEST.get()
    if request is not None and len(request.unenforced) < MAX_UNENFORCED:
        request.unenforced.append(place)


def note_error(error: KolosalError) -> None:
    """The request at hand is answered with this."""
    if (request := REQUEST.get()) is not None:
        request.error = error


def note_model(name: str | None) -> None:
    """The request at hand asks for this model."""
    if name and (request := REQUEST.get()) is not None:
        request.model = name
