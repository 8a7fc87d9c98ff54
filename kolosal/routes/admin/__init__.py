"""The daemon's own API: engines, memory, metrics, events, health."""

from __future__ import annotations

from starlette.routing import BaseRoute

from kolosal.routes.admin import (
    activity,
    cluster,
    config,
    downloads,
    engines,
    events,
    health,
    keys,
    library,
    memory,
    metrics,
    model_settings,
)


def routes() -> list[BaseRoute]:
    """Paths under `/health`, `/metrics`, `/v1/events`, `/v1/activity`, `/v1/keys`, `/v1/library`, `/v1/model-settings`, `/cluster` and `/engines`."""
    return [
        *health.routes(),
        *metrics.routes(),
        *events.routes(),
        *activity.routes(),
        *keys.routes(),
        *config.routes(),
        *downloads.routes(),
        *engines.routes(),
        *memory.routes(),
        *cluster.routes(),
        *model_settings.routes(),
        *library.routes(),
    ]
