"""The daemon's own API: engines, memory, metrics, events, health."""

from __future__ import annotations

from starlette.routing import BaseRoute

from kolosal.routes.admin import engines, events, health, memory, metrics


def routes() -> list[BaseRoute]:
    """Paths under `/health`, `/metrics`, `/v1/events` and `/engines`."""
    return [
        *health.routes(),
        *metrics.routes(),
        *events.routes(),
        *engines.routes(),
        *memory.routes(),
    ]
