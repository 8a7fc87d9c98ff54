"""ModelsFile: what `models.yaml` says, checked as a whole, and what each name in it means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kolosal.config.errors import ConfigError
from kolosal.config.yaml_file import KeyPath, dotted
from kolosal.engines.names import plain
from kolosal.engines.parameters import LLAMACPP, EngineConfig
from kolosal.models.durations import duration_seconds
from kolosal.models.settings import ModelsSettings, ModelTurn, ProfileSettings


@dataclass(frozen=True, slots=True)
class SettingsLayer:
    """What one place of the file says of a model."""

    settings: ProfileSettings
    key: KeyPath
    """The place: `models.coder.profiles.fast`."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """What a name means: which engine answers, and what is said of it. The first layer that says something wins."""

    engine_id: str
    root: str
    """The engine, or model of the library, whose file it is."""
    layers: tuple[SettingsLayer, ...] = ()

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens are chosen where a request does not say."""
        return _merged(layer.settings.sampling for layer in self.layers)

    @property
    def loading(self) -> dict[str, Any]:
        """Loading parameters that are given, the template among them."""
        return _merged(layer.settings.loading for layer in self.layers)

    @property
    def system(self) -> str | None:
        """What the model is told first; None: nothing."""
        told = (layer.settings.system for layer in self.layers)
        return next((text for text in told if text is not None), None) or None

    @property
    def messages(self) -> tuple[ModelTurn, ...]:
        """Turns that stand before those of every chat."""
        return next((layer.settings.messages for layer in self.layers if layer.settings.messages), ())

    @property
    def keep_alive_s(self) -> float | None:
        """Seconds to stay in memory after an answer: 0 is not at all, less for ever; None: nothing is said."""
        said = (layer.settings.keep_alive for layer in self.layers)
        given = next((each for each in said if each is not None), None)
        return None if given is None else duration_seconds(given)


@dataclass(frozen=True, slots=True)
class ModelsFile:
    """All that is said of models. Made by `of`, which checks it."""

    settings: ModelsSettings = field(default_factory=ModelsSettings)
    place: Callable[[KeyPath], str] = dotted
    """Where a value stands, for people: with the file and its line."""
    _names: Mapping[str, str] = field(default_factory=dict)
    """Entries of the file by their names and aliases, as `plain` has them."""
    _groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Exclusive groups by their members' engines."""

    @classmethod
    def of(cls, settings: ModelsSettings, place: Callable[[KeyPath], str] = dotted) -> ModelsFile:
        """The file of these settings.

        Raises:
            ConfigError: a name means two things, or is made of itself; the message says where that stands.
        """
        made = cls(settings, place, _names(settings, place))
        for name in settings.models:
            made._refuse_loop(name)
        return replace(made, _groups=made._exclusive())

    # --- names ---

    def find(self, name: str) -> NamedModel | None:
        """What a name means that stands in the file: a model, an alias, or either with a profile (`coder:fast`)."""
        entry = self._names.get(plain(name))
        profile: str | None = None
        if entry is None:
            head, _, tail = name.strip().rpartition(":")
            entry = self._names.get(plain(head))
            profile = tail
        if entry is None:
            return None
        entries = [*self._chain(entry)]
        layers = [SettingsLayer(self.settings.models[each], ("models", each)) for each in entries]
        root = self.settings.models[entries[-1]].base or entries[-1]
        engine_id = self._engine_id(entries, root)
        if profile is not None:
            found = self._profile(entries, profile)
            if found is None:
                return None
            if found.settings.loading:
                engine_id = f"{entry}:{found.key[-1]}"
            layers.insert(0, found)
        return NamedModel(engine_id, root, tuple(layers))

    def engine_id_of(self, name: str) -> str:
        """The engine that a name means; the name itself where the file knows none of it."""
        found = self.find(name)
        return name if found is None else found.engine_id

    @property
    def names(self) -> Mapping[str, str]:
        """All names for models, by the plain form of each."""
        known = (name for entry, own in self.settings.models.items() for name in (entry, *own.alias))
        return {plain(name): name for name in known}

    def names_of(self, engine_id: str) -> tuple[str, ...]:
        """All other names by which an engine is reached, without profiles."""
        names = (name for entry, own in self.settings.models.items() for name in (entry, *own.alias))
        wanted = plain(engine_id)
        return tuple(
            name for name in names if plain(name) != wanted and plain(self.engine_id_of(name)) == wanted
        )

    def refuse_taken(self, engine_ids: Iterable[str]) -> None:
        """Raises ConfigError where another name of a model is the id of an engine that was added."""
        ids = {plain(engine_id): engine_id for engine_id in engine_ids}
        for entry, model in self.settings.models.items():
            names = [(alias, ("models", entry, "alias", index)) for index, alias in enumerate(model.alias)]
            for name, key in [*names, (entry, ("models", entry))]:
                meant = plain(self.engine_id_of(name))
                if plain(name) in ids and meant != plain(name):
                    raise ConfigError(f"{self.place(key)}: '{name}' is the id of an engine already")

    # --- what engines are told: `KnownModels` ---

    def config_of(self, config: EngineConfig) -> EngineConfig:
        """An engine as it is to be loaded: what the file says in place of what whoever added it did not give."""
        found = self.find(config.engine_id)
        if found is None or not found.loading or config.backend != LLAMACPP:
            return config
        values = {name: value for name, value in found.loading.items() if name not in config.given}
        try:
            return replace(config, parameters=replace(config.parameters, **values))
        except ValueError:  # a KV cache smaller than the context that was given
            return config

    def root_of(self, engine_id: str) -> str | None:
        """The engine or model whose file an engine of the file's own has; None where it is no such engine."""
        found = self.find(engine_id)
        is_own = found is not None and plain(found.engine_id) == plain(engine_id) != plain(found.root)
        return found.root if found is not None and is_own else None

    def exclusive_groups_of(self, engine_id: str) -> frozenset[str]:
        """Names of the groups of which no two are in memory together."""
        return self._groups.get(plain(engine_id), frozenset())

    # --- parts ---

    def _chain(self, entry: str) -> Iterator[str]:
        """The entries that one is made of, itself first."""
        at: str | None = entry
        while at is not None:
            yield at
            base = self.settings.models[at].base
            at = None if base is None else self._names.get(plain(base))

    def _engine_id(self, entries: list[str], root: str) -> str:
        """The first that is loaded with parameters of its own, or has a file of its own name."""
        own = (each for each in entries if self.settings.models[each].loading)
        first = next(own, None)
        return root if first is None else first

    def _profile(self, entries: list[str], name: str) -> SettingsLayer | None:
        for each in entries:
            for key, settings in self.settings.models[each].profiles.items():
                if key.casefold() == name.casefold():
                    return SettingsLayer(settings, ("models", each, "profiles", key))
        return None

    def _refuse_loop(self, entry: str) -> None:
        seen: set[str] = set()
        for each in self._chain(entry):
            if each in seen:
                key = ("models", entry, "from")
                raise ConfigError(f"{self.place(key)}: '{entry}' is made of itself, by way of '{each}'")
            seen.add(each)

    def _exclusive(self) -> dict[str, frozenset[str]]:
        groups: dict[str, frozenset[str]] = {}
        for name, group in self.settings.groups.items():
            for member in group.models if group.exclusive else ():
                key = plain(self.engine_id_of(member))
                groups[key] = groups.get(key, frozenset()) | {name}
        return groups


NOTHING_SAID = ModelsFile()


def _names(settings: ModelsSettings, place: Callable[[KeyPath], str]) -> dict[str, str]:
    """Entries by names and aliases."""
    known: dict[str, tuple[str, KeyPath]] = {}

    def take(name: str, entry: str, key: KeyPath) -> None:
        if plain(name) in known:
            taken = dotted(known[plain(name)][1])
            raise ConfigError(f"{place(key)}: the name '{name}' is taken already: {taken}")
        known[plain(name)] = entry, key

    for entry in settings.models:
        take(entry, entry, ("models", entry))
    for entry, model in settings.models.items():
        for index, alias in enumerate(model.alias):
            take(alias, entry, ("models", entry, "alias", index))
    for entry, model in settings.models.items():
        for profile in model.profiles:
            for name in (entry, *model.alias):
                if plain(f"{name}:{profile}") in known:
                    key = ("models", entry, "profiles", profile)
                    taken = dotted(known[plain(f"{name}:{profile}")][1])
                    raise ConfigError(f"{place(key)}: the name '{name}:{profile}' is taken already: {taken}")
    return {name: entry for name, (entry, _) in known.items()}


def _merged(parts: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        merged = {**part, **merged}
    return merged
