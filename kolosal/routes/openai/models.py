"""`GET /v1/models`: every engine is a model. Listing loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.parameters import EngineId
from kolosal.errors import NotFound
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of

_OWNER = "kolosal"


class ModelObject(TypedDict):
    """An engine as a model."""

    id: str
    """The `engine_id`."""
    object: Literal["model"]
    created: int
    """When the engine was added: Unix time in seconds."""
    owned_by: str
    name: str
    """The model's file."""


class ModelList(TypedDict):
    """All engines as models, loaded or not."""

    object: Literal["list"]
    data: list[ModelObject]


@Operation(group=Group.OPENAI, scope=Access.ANY_KEY, answer="`data`: every engine as a model.")
async def list_models(request: Request) -> JsonResponse[ModelList]:
    """All engines as models."""
    models = [_model(engine) for engine in registry_of(request).list()]
    return JsonResponse({"object": "list", "data": models})


@Operation(
    group=Group.OPENAI,
    scope=Access.ANY_KEY,
    path={"model": EngineId},
    answer="The engine as a model.",
)
async def show_model(request: Request) -> JsonResponse[ModelObject]:
    """One engine as a model."""
    name = request.path_params["model"]
    try:
        engine = registry_of(request).get(name)
    except NotFound:
        raise NotFound(f"Model '{name[:100]}' not found", param="model", code="model_not_found") from None
    return JsonResponse(_model(engine))


def _model(engine: Engine) -> ModelObject:
    return {
        "id": engine.engine_id,
        "object": "model",
        "created": int(engine.created_at),
        "owned_by": _OWNER,
        "name": Path(engine.config.model_path).name,
    }
