"""`GET /v1/models`: every engine is a model. Listing loads nothing."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from kolosal.engines.engine import Engine
from kolosal.errors import NotFound
from kolosal.http.responses import JsonResponse
from kolosal.routes.services import Services, services_of

_OWNER = "kolosal"


async def list_models(request: Request) -> Response:
    """All engines as models."""
    services = services_of(request)
    models = [_model(engine, services) for engine in services.registry.list()]
    return JsonResponse({"object": "list", "data": models})


async def show_model(request: Request) -> Response:
    """One engine as a model."""
    name = request.path_params["model"]
    services = services_of(request)
    try:
        engine = services.registry.get(name)
    except NotFound:
        raise NotFound(f"Model '{name[:100]}' not found", param="model", code="model_not_found") from None
    return JsonResponse(_model(engine, services))


def _model(engine: Engine, services: Services) -> dict[str, object]:
    return {
        "id": engine.engine_id,
        "object": "model",
        "created": int(services.started_at),
        "owned_by": _OWNER,
        "name": Path(engine.config.model_path).name,
    }
