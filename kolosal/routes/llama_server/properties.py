"""`GET /props` and `GET /slots`: what llama-server tells of its model and its places. Looking loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal import __version__
from kolosal.engines.engine import Engine
from kolosal.engines.state import EngineState
from kolosal.errors import NotFound, ServerBusy
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.body import optional_model
from kolosal.routes.common.fields import ModelName
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import registry_of, services_of
from kolosal.routes.llama_server.completion import NativeCompletionBody
from kolosal.routes.llama_server.native_encode import generation_settings
from kolosal.schema import TokensPrompt


class PropsQuery(BaseModel):
    """Of which engine."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the only one."""


class SlotsQuery(PropsQuery):
    """Of which engine, and whether it must have a place."""

    fail_on_no_slot: Annotated[int, Field(ge=0, le=1)] = 0
    """1: a 503 where all places are taken."""


class DefaultSettings(TypedDict):
    """What `/completion` does unless told otherwise."""

    n_ctx: int
    """Tokens one request may use."""
    params: dict[str, Any]
    """By the names of its fields."""


class Modalities(TypedDict):
    """What a model takes besides text."""

    vision: bool
    audio: bool


class Props(TypedDict):
    """An engine, as llama-server describes its model."""

    default_generation_settings: DefaultSettings
    total_slots: int
    """Requests generated at the same time."""
    model_alias: str
    """The `engine_id`."""
    model_path: str
    """The model's file; its whole path for keys of the scope `admin` only."""
    chat_template: str
    modalities: Modalities
    build_info: str
    is_sleeping: bool
    """Whether the model is loaded at the next request only."""


class Slot(TypedDict):
    """A place for a request."""

    id: int
    n_ctx: int
    speculative: bool
    """Whether tokens are guessed."""
    is_processing: bool


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    query=PropsQuery,
    answer="The engine, as llama-server describes its model.",
)
async def props(request: Request) -> JsonResponse[Props]:
    """What an engine does unless told otherwise, how many requests it generates at the same time, and its chat template."""
    engine = _engine(request, read_query(request, PropsQuery).model)
    path = Path(engine.config.model_path)
    _, card = await services_of(request).cards.of(path) or (None, None)
    template = engine.config.parameters.chat_template or ("" if card is None else card.chat_template)
    body = NativeCompletionBody(prompt="")
    [unasked] = body.to_requests([TokensPrompt((0,))])
    return JsonResponse(
        {
            "default_generation_settings": {
                "n_ctx": engine.n_ctx,
                "params": generation_settings(unasked.sampling, engine.n_ctx, stream=False),
            },
            "total_slots": engine.config.parameters.n_parallel,
            "model_alias": engine.engine_id,
            "model_path": str(path) if is_admin(request.scope) else path.name,
            "chat_template": template,
            "modalities": {"vision": False, "audio": False},
            "build_info": f"kolosal-{__version__}",
            "is_sleeping": engine.state is not EngineState.READY,
        }
    )


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    query=SlotsQuery,
    answer="The engine's places, and which are taken.",
)
async def slots(request: Request) -> JsonResponse[list[Slot]]:
    """How many requests an engine generates at the same time, and how many it does now. What others ask is told to nobody."""
    query = read_query(request, SlotsQuery)
    engine = _engine(request, query.model)
    total = engine.config.parameters.n_parallel
    if query.fail_on_no_slot and engine.in_flight >= total:
        raise ServerBusy(f"All {total} slots of engine '{engine.engine_id}' are taken")
    return JsonResponse(
        [
            {
                "id": slot,
                "n_ctx": engine.n_ctx,
                "speculative": engine.config.parameters.speculation,
                "is_processing": slot < engine.in_flight,
            }
            for slot in range(total)
        ]
    )


def _engine(request: Request, model: str | None) -> Engine:
    registry = registry_of(request)
    name = optional_model(registry, model)
    if name is None:
        raise NotFound("No engine has been added yet: add one with POST /engines")
    try:
        return registry.get(name)
    except NotFound:
        raise NotFound(f"Model '{name[:100]}' not found{registry.did_you_mean(name)}") from None
