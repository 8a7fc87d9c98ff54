"""The models there are for clients: every engine, and every model of the library that a request would make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from kolosal.engines.engine import Engine
from kolosal.engines.names import plain
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.state import EngineState
from kolosal.models.entry import LibraryModel, ModelFacts
from kolosal.models.file_version import FileVersion
from kolosal.routes.common.services import Services

Status: TypeAlias = Literal["unloaded", "loading", "loaded", "failed"]
"""Whether a model is in memory, in llama-server's words."""

_STATUSES: dict[EngineState, Status] = {
    EngineState.READY: "loaded",
    EngineState.LOADING: "loading",
    EngineState.UNLOADING: "unloaded",
    EngineState.UNLOADED: "unloaded",
    EngineState.CLOSED: "unloaded",
}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model under a name."""

    config: EngineConfig
    """That of its engine, or what it would be."""
    engine: Engine | None
    """None where no request has made it one."""
    facts: ModelFacts | None
    """What its file says; None where that cannot be read, or is not yet."""
    files: tuple[FileVersion, ...] = ()
    """Its files, the first one first; none where they are gone."""

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.config.engine_id

    @property
    def status(self) -> Status:
        """Whether it is in memory."""
        return "unloaded" if self.engine is None else status_of(self.engine)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    @property
    def n_ctx(self) -> int:
        """Tokens that one request may use."""
        return self.config.parameters.least_n_ctx if self.engine is None else self.engine.n_ctx


def status_of(engine: Engine) -> Status:
    """Whether an engine's model is in memory."""
    status = _STATUSES[engine.state]
    return "failed" if status == "unloaded" and engine.last_error is not None else status


async def known_models(services: Services) -> list[KnownModel]:
    """All models in the order engines were added, then those of the library by name, then those that are made of others.

    Damaged files are not among these.
    """
    models = await services.library.fresh()
    by_path = {str(model.path): model for model in models}
    engines = services.registry.list()
    known = [await _of_engine(services, engine, by_path.get(engine.config.model_path)) for engine in engines]
    taken = {engine.engine_id for engine in engines}
    if services.settings.library.autoload:
        known += [
            _of_library(services, each) for each in models if each.name not in taken and each.error is None
        ]
    by_name = {model.name: model for model in known}
    said = services.model_settings.said
    for entry in said.settings.models:
        made = said.find(entry)
        origin = None if made is None or made.engine_id in by_name else by_name.get(made.root)
        if made is not None and origin is not None:
            config = replace(origin.config, engine_id=made.engine_id)
            by_name[made.engine_id] = replace(
                origin, config=services.registry.known.config_of(config), engine=None
            )
    return [*by_name.values()]


async def known_model(services: Services, name: str, not_found: Callable[[], Exception]) -> KnownModel:
    """The model that a name means: an engine, else one of the library. Raises what `not_found` gives where it means none."""
    engine = services.registry.find(name)
    if engine is not None:
        return await _of_engine(services, engine, services.library.at(engine.config.model_path))
    model = await services.library.look_up(name)
    if model is None:
        raise not_found()
    return _of_library(services, model)


def _of_library(services: Services, model: LibraryModel) -> KnownModel:
    """A model that is no engine yet."""
    config = EngineConfig(model.name, str(model.path), LoadingParameters())
    return KnownModel(services.registry.known.config_of(config), None, model.facts, model.files)


async def _of_engine(services: Services, engine: Engine, model: LibraryModel | None) -> KnownModel:
    if model is not None and model.facts is not None:
        return KnownModel(engine.config, engine, model.facts, model.files)
    if not engine.config.model_path:  # of a backend that needs none
        return KnownModel(engine.config, engine, None)
    path = Path(engine.config.model_path)
    read = await services.facts.of(path, services.file_checks()(str(path)))
    file, facts = read or (None, None)
    return KnownModel(engine.config, engine, facts, () if file is None else (file,))


def aliases_of(services: Services) -> Mapping[str, list[str]]:
    """The other names of models, by the ids of their engines."""
    said, aliases = services.model_settings.said, dict[str, list[str]]()
    for name in said.names.values():
        engine_id = said.engine_id_of(name)
        if plain(engine_id) != plain(name):
            aliases.setdefault(engine_id, []).append(name)
    return aliases


async def running_models(services: Services) -> list[tuple[Engine, KnownModel]]:
    """Those that are in memory."""
    ready = [engine for engine in services.registry.list() if engine.state is EngineState.READY]
    return [
        (engine, await _of_engine(services, engine, services.library.at(engine.config.model_path)))
        for engine in ready
    ]


def engines_of(services: Services, model: LibraryModel) -> Sequence[Engine]:
    """The engines that have this model's file."""
    return [each for each in services.registry.list() if each.config.model_path == str(model.path)]
