"""Dialect: how a protocol words what any layer may have to answer, picked by the path of the request.

Errors come from routes, from handlers and from middleware, also where no route was found. `RequestLog` notes the dialect of
each request before anything else happens; whoever answers asks for it here. A path of nobody's is answered as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Scope

from kolosal.errors import KolosalError
from kolosal.http.responses import error_response

_STATE_KEY = "dialect"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol's way."""

    prefixes: tuple[str, ...] = ()
    """The paths it answers, with everything below them."""
    encode_error: Callable[[KolosalError, str], Response] = lambda error, _request_id: error_response(error)
    """An error as an answer; the text is the id of the request."""
    request_id_header: str | None = None
    """A name, besides `X-Request-Id`, under which answers say the id of the request."""

    def owns(self, path: str) -> bool:
        """Whether a path is one of this dialect's."""
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self.prefixes)


OPENAI = Dialect()
"""What all paths have that are no other dialect's."""


def note_dialect(scope: Scope, dialects: Iterable[Dialect]) -> Dialect:
    """Find the dialect of a request by its path, and keep it with the request."""
    found = next((dialect for dialect in dialects if dialect.owns(scope["path"])), OPENAI)
    scope.setdefault("state", {})[_STATE_KEY] = found
    return found


def dialect_of(scope: Scope) -> Dialect:
    """The dialect that was noted for a request."""
    found = scope.get("state", {}).get(_STATE_KEY)
    return found if isinstance(found, Dialect) else OPENAI
