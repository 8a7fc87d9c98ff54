"""Whose work is being done: the ids of the request at hand, for log lines, events and traces.

Context variables, because tasks inherit them: what a request starts knows the request.
"""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("kolosal_request_id", default=None)
"""The `X-Request-Id` of the HTTP request; None outside of one."""

TRACE_PARENT: ContextVar[str | None] = ContextVar("kolosal_trace_parent", default=None)
"""The `traceparent` header of the HTTP request, as it came."""
