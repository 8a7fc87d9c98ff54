"""What holds for a model, and where each value came from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from kolosal.config.yaml_file import dotted
from kolosal.engines.gguf_sampling import FIELDS, PREFIX, SEQUENCE
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.models.models_file import ModelsFile, NamedModel, SettingsLayer

GIVEN = "given when the engine was added"
DEFAULT = "default"
_KEYS = {field: PREFIX + key for key, field in FIELDS.items()} | {"samplers": PREFIX + SEQUENCE}


@dataclass(frozen=True, slots=True)
class ExplainedSetting:
    """One value that holds for a model."""

    name: str
    """As in `models.yaml`: `parameters.n_ctx`, `sampling.temperature`, `system`."""
    value: Any
    origin: str
    """Where it came from: a place of `models.yaml`, a key of the model's file, `given when the engine was added` or `default`."""


def explained(
    file: ModelsFile, name: str, asked: EngineConfig, of_file: Mapping[str, Any]
) -> list[ExplainedSetting]:
    """All that holds for a model by one of its names, as requests that say nothing themselves have it.

    `asked` is what its engine was added with; `of_file` what its file says of sampling. Of sampling there is only what is said:
    the rest is each API's own default.
    """
    model = file.find(name) or NamedModel(asked.engine_id, asked.engine_id)
    return [*_parameters(file, asked), *_sampling(file, model, of_file), *_others(file, model)]


def _parameters(file: ModelsFile, asked: EngineConfig) -> Iterator[ExplainedSetting]:
    holds = file.config_of(asked).parameters
    own = file.find(asked.engine_id)
    layers = () if own is None else own.layers
    for field in fields(LoadingParameters):
        value = getattr(holds, field.name)
        said = next((layer for layer in layers if field.name in layer.settings.loading), None)
        name = "template" if field.name == "chat_template" else f"parameters.{field.name}"
        if field.name in asked.given:
            origin = GIVEN
        elif said is not None:
            origin = _place(file, said, name)
        else:
            origin = DEFAULT if value == field.default else GIVEN
        yield ExplainedSetting(name, value, origin)


def _sampling(file: ModelsFile, model: NamedModel, of_file: Mapping[str, Any]) -> Iterator[ExplainedSetting]:
    for field, value in sorted({**of_file, **model.sampling}.items()):
        name = f"sampling.{field}"
        said = next((layer for layer in model.layers if field in layer.settings.sampling), None)
        yield ExplainedSetting(name, value, _KEYS[field] if said is None else _place(file, said, name))


def _others(file: ModelsFile, model: NamedModel) -> Iterator[ExplainedSetting]:
    for name in ("system", "messages", "keep_alive"):
        for layer in model.layers:
            value = getattr(layer.settings, name)
            if value is not None and value != ():
                yield ExplainedSetting(name, value, _place(file, layer, name))
                break


def _place(file: ModelsFile, layer: SettingsLayer, name: str) -> str:
    key = (*layer.key, *name.split("."))
    place = file.place(key)
    return place if dotted(key) in place else f"{place}: {dotted(key)}"
