"""What `models.yaml` can say of a model, of its profiles, and of groups of models: types and bounds. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from kolosal.config.section import STRICT
from kolosal.engines.parameters import EngineId, LoadingParameters
from kolosal.models.durations import Duration
from kolosal.sampling import NOT_OF_A_MODEL, SamplingParams

MAX_ENTRIES = 1000
"""Models, or groups, of one file."""

MAX_ALIASES = 32
"""Other names of one model."""

MAX_PROFILES = 32
"""Profiles of one model."""

MAX_TEXT_CHARS = 262_144
"""Characters of a system prompt or of a turn."""

MAX_MESSAGES = 256
"""Turns that stand before every chat of a model."""

_WORD = re.compile(r"[^\x00-\x20\x7f/\\?#:]+")

_AN_ENTRY = ConfigDict(defer_build=True, **STRICT, populate_by_name=True)


class _Given:
    """Fields of a dataclass, with its bounds: a mapping that has those that were given, and no others."""

    def __init__(self, kind: type, without: frozenset[str] = frozenset()) -> None:
        self._kind = kind
        self.names = frozenset(field.name for field in fields(kind)) - without

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._kind)

    def __get_pydantic_core_schema__(self, _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            self._validated,
            handler.generate_schema(self._kind),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(schema))
        own: dict[str, JsonSchemaValue] = {
            name: each for name, each in whole["properties"].items() if name in self.names
        }
        properties = {
            name: {
                "anyOf": [{key: value for key, value in each.items() if key != "default"}, {"type": "null"}]
            }
            for name, each in own.items()
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def _validated(self, value: object, validate: Callable[[object], object]) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            validate(value)
            raise TypeError  # which a dataclass says itself
        given = {str(name): each for name, each in value.items() if each is not None}
        unknown = [name for name in value if name not in self.names]
        if unknown:
            raise self._wrong("extra_forbidden", str(unknown[0]), None)
        # as JSON, where an array is a tuple and a string an enum's value also in strict mode
        made = self._adapter.validate_json(pydantic_core.to_json(given), strict=True)
        return {name: getattr(made, name) for name in given}

    def _wrong(self, kind: str, name: str, value: object, **context: object) -> ValidationError:
        details = InitErrorDetails(type=kind, loc=(name,), input=value, ctx=context)
        return ValidationError.from_exception_data(self._kind.__name__, [details])


GIVEN_PARAMETERS = _Given(LoadingParameters, without=frozenset({"chat_template"}))
GIVEN_SAMPLING = _Given(SamplingParams, without=NOT_OF_A_MODEL)

LoadingDefaults: TypeAlias = Annotated[dict[str, Any], GIVEN_PARAMETERS]
"""Loading parameters, those that are given."""

SamplingDefaults: TypeAlias = Annotated[dict[str, Any], GIVEN_SAMPLING]
"""Fields of `SamplingParams`, those that are given."""

SystemPrompt: TypeAlias = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Template: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]


def _checked_name(name: str) -> str:
    if not _WORD.fullmatch(name):
        raise PydanticCustomError("union", "a word without blanks, ':', '/', '?', '#' and backslashes")
    return name


ProfileName: TypeAlias = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_checked_name)]
"""The name of a profile or a group."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class ModelTurn(BaseModel):
    """A turn that stands before every chat of a model."""

    model_config = STRICT

    role: Literal["system", "user", "assistant"]
    content: SystemPrompt


class ProfileSettings(BaseModel):
    """What is other where a model is used as `model:profile`."""

    model_config = _AN_ENTRY

    parameters: LoadingDefaults = Field(default_factory=dict)
    """Loading parameters. A profile or model that has its own is an engine of its own, and loaded apart."""
    template: Template | None = None
    """A chat template in Jinja, in place of the file's; loaded apart as well."""
    sampling: SamplingDefaults = Field(default_factory=dict)
    """How tokens are chosen where a request does not say."""
    system: SystemPrompt | None = None
    """What the model is told first where a chat has no system prompt."""
    messages: Annotated[tuple[ModelTurn, ...], Field(max_length=MAX_MESSAGES)] = ()
    """Turns that stand before those of every chat."""
    keep_alive: Duration | None = None
    """How long it stays in memory after an answer, where a request does not say: seconds, or a duration such as `5m`."""

    @property
    def loading(self) -> dict[str, Any]:
        """The loading parameters that are given, the template among them."""
        return (
            self.parameters if self.template is None else self.parameters | {"chat_template": self.template}
        )


class ModelSettings(ProfileSettings):
    """What is said of one model."""

    base: EngineId | None = Field(None, alias="from")
    """The model that this one is made of, by its name; without one, the engine or model of the same name."""
    alias: Annotated[tuple[EngineId, ...], Field(max_length=MAX_ALIASES), BeforeValidator(_as_tuple)] = ()
    """Other names for it, which load nothing twice."""
    profiles: Annotated[dict[ProfileName, ProfileSettings], Field(max_length=MAX_PROFILES)] = Field(
        default_factory=dict
    )
    """What is other in each of its profiles."""


class GroupSettings(BaseModel):
    """Models that belong together."""

    model_config = STRICT

    models: Annotated[tuple[EngineId, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    """Their names."""
    exclusive: bool = False
    """Whether they are never in memory together."""


class ModelsSettings(BaseModel):
    """All of `models.yaml`."""

    model_config = STRICT

    models: Annotated[dict[EngineId, ModelSettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict
    )
    groups: Annotated[dict[ProfileName, GroupSettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict
    )
