"""`GET /v1/models`: every engine is a model. Listing loads nothing."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from kolosal.engines.engine import Engine
from kolosal.engines.parameters import EngineId
from kolosal.errors import NotFound
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.openai.answer_types import Model, ModelList

_OWNER = "kolosal"


@Operation(
    group=Group.OPENAI, scope=Access.ANY_KEY, answer="`data`: every engine as a model.", answer_type=ModelList
)
async def list_models(request: Request) -> Response:
    """All engines as models."""
    models = [_model(engine) for engine in registry_of(request).list()]
    return JsonResponse({"object": "list", "data": models})


@Operation(
    group=Group.OPENAI,
    scope=Access.ANY_KEY,
    path={"model": EngineId},
    answer="The engine as a model.",
    answer_type=Model,
)
async def show_model(request: Request) -> Response:
    """One engine as a model."""
    name = request.path_params["model"]
    try:
        engine = registry_of(request).get(name)
    except NotFound:
        raise NotFound(f"Model '{name[:100]}' not found", param="model", code="model_not_found") from None
    return JsonResponse(_model(engine))


def _model(engine: Engine) -> dict[str, object]:
    return {
        "id": engine.engine_id,
        "object": "model",
        "created": int(engine.created_at),
        "owned_by": _OWNER,
        "name": Path(engine.config.model_path).name,
    }
