"""What is said of models, read and written: `models.yaml` over HTTP, and where each value that holds came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.gguf_sampling import PREFIX, sampling_of_file
from kolosal.engines.parameters import EngineId
from kolosal.errors import NotFound
from kolosal.http.decode import RequestBody, decode
from kolosal.http.responses import JsonResponse
from kolosal.models.provenance import ExplainedSetting, explained
from kolosal.models.settings import (
    MAX_ALIASES,
    MAX_PROFILES,
    GroupSettings,
    ModelSettings,
    ProfileName,
    ProfileSettings,
)
from kolosal.models.settings_file import put_group, put_model, remove
from kolosal.routes.common.engine_path import checked_name
from kolosal.routes.common.model_settings import change_models
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Services, services_of

MODEL_SETTINGS = "/v1/model-settings/{model:engine}"
MODEL_GROUP = "/v1/model-groups/{group}"

_profile_name: TypeAdapter[str] = TypeAdapter(ProfileName)


class ProfileBody(RequestBody, ProfileSettings):
    """What is other in a profile."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")


class ModelSettingsBody(RequestBody, ModelSettings):
    """What is to be said of a model, in place of all that was."""

    model_config = ConfigDict(
        defer_build=True, strict=True, frozen=True, extra="forbid", populate_by_name=False
    )

    alias: Annotated[tuple[EngineId, ...], Field(max_length=MAX_ALIASES)] = ()
    """Other names for it, which load nothing twice."""
    profiles: Annotated[dict[ProfileName, ProfileBody], Field(max_length=MAX_PROFILES)] = Field(  # type: ignore[assignment]
        default_factory=dict
    )
    """What is other in each of its profiles."""


class GroupBody(RequestBody, GroupSettings):
    """A group of models, in place of the one of that name."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")


class AllModelSettings(TypedDict):
    """All that is said of models."""

    path: str | None
    """The file; null: there is none, and nothing can be written."""
    models: dict[str, dict[str, JsonValue]]
    """By name, as in the file."""
    groups: dict[str, dict[str, JsonValue]]


class HeldSettings(TypedDict):
    """What holds for a model."""

    model: str
    engine_id: str
    """The engine that answers under this name."""
    settings: dict[str, JsonValue] | None
    """What the file says under this very name; null: nothing."""
    holds: list[ExplainedSetting]
    """Each value that holds where a request says nothing, and where it came from."""


class SettingsChanged(TypedDict):
    """What a change did."""

    applied: list[str]
    """What is said otherwise now, and engines that were replaced for it, or could not be, with the reason."""


def routes() -> list[Route]:
    """The paths of this module."""
    return [
        Route("/v1/model-settings", list_settings),
        Route(MODEL_SETTINGS, show_settings),
        Route(MODEL_SETTINGS, put_settings, methods=["PUT"]),
        Route(MODEL_SETTINGS, delete_settings, methods=["DELETE"]),
        Route(MODEL_GROUP, write_group, methods=["PUT"]),
        Route(MODEL_GROUP, delete_group, methods=["DELETE"]),
    ]


@Operation(group=Group.ENGINES, scope=Access.ADMIN, answer="The file, its models and its groups.")
async def list_settings(request: Request) -> JsonResponse[AllModelSettings]:
    """All that `models.yaml` says."""
    file = services_of(request).model_settings
    said = file.said.settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    path = None if file.path is None else str(file.path)
    return JsonResponse({"path": path, "models": said.get("models", {}), "groups": said.get("groups", {})})


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"model": EngineId},
    answer="What the file says under this name, and each value that holds, with its origin.",
)
async def show_settings(request: Request) -> JsonResponse[HeldSettings]:
    """What holds for a model, by its name, an alias or `model:profile`. Looking loads nothing."""
    services, name = services_of(request), request.path_params["model"]
    engine = await services.registry.resolve(name)
    file = services.model_settings.said
    own = file.settings.models.get(name)
    of_file = await sampling_in_file(services, engine)
    return JsonResponse(
        {
            "model": name,
            "engine_id": engine.engine_id,
            "settings": None if own is None else _written(own),
            "holds": explained(file, name, engine.asked, of_file),
        }
    )


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"model": EngineId},
    body=ModelSettingsBody,
    example={"sampling": {"temperature": 0.2}, "system": "Be brief.", "alias": ["small"]},
    answer="What changed.",
)
async def put_settings(request: Request) -> JsonResponse[SettingsChanged]:
    """Say something else of a model, from the next request on. An engine with other loading parameters is replaced without a gap."""
    body = await decode(request, ModelSettingsBody)
    name = checked_name(request.path_params["model"])
    applied = await change_models(services_of(request), put_model(name, body))
    return JsonResponse({"applied": applied})


@Operation(group=Group.ENGINES, scope=Access.ADMIN, path={"model": EngineId}, answer="What changed.")
async def delete_settings(request: Request) -> JsonResponse[SettingsChanged]:
    """Say nothing of a model any more. Its engine and its file stay."""
    services, name = services_of(request), request.path_params["model"]
    if name not in services.model_settings.said.settings.models:
        raise NotFound(f"models.yaml says nothing of the model '{name[:100]}'", param="model")
    return JsonResponse({"applied": await change_models(services, remove("models", name))})


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"group": ProfileName},
    body=GroupBody,
    example={"models": ["tiny", "other"], "exclusive": True},
    answer="What changed.",
)
async def write_group(request: Request) -> JsonResponse[SettingsChanged]:
    """Make models a group. Those of an exclusive one are never in memory together."""
    body = await decode(request, GroupBody)
    name = checked_name(request.path_params["group"], _profile_name, "group")
    return JsonResponse({"applied": await change_models(services_of(request), put_group(name, body))})


@Operation(group=Group.ENGINES, scope=Access.ADMIN, path={"group": ProfileName}, answer="What changed.")
async def delete_group(request: Request) -> JsonResponse[SettingsChanged]:
    """Forget a group. Its models stay."""
    services, name = services_of(request), request.path_params["group"]
    if name not in services.model_settings.said.settings.groups:
        raise NotFound(f"models.yaml has no group '{name[:100]}'", param="group")
    return JsonResponse({"applied": await change_models(services, remove("groups", name))})


async def sampling_in_file(services: Services, engine: Engine) -> Mapping[str, Any]:
    """What a model's file says of sampling, also of one that was never loaded."""
    if engine.info is not None:
        return engine.file_sampling
    path = Path(engine.config.model_path)
    _, card = await services.cards.of(path, services.file_checks()(str(path))) or (None, None)
    return {} if card is None else sampling_of_file(lambda key: card.header.metadata.get(PREFIX + key))


def _written(settings: ModelSettings) -> dict[str, JsonValue]:
    """As in the file."""
    written: dict[str, JsonValue] = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return written
