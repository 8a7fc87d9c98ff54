"""Routes: one module per dialect, each a decoder to `GenerateRequest` and an encoder from `TokenDelta`.

`all_routes` is the only list of paths. A route decodes, calls an engine and encodes; it holds no policy.
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from kolosal.routes import engines, health, openai

__all__ = ["all_routes"]


def all_routes() -> list[BaseRoute]:
    """Every path this daemon answers."""
    return [*health.routes(), *engines.routes(), *openai.routes()]
