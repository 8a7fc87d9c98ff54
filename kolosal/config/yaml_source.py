"""Settings out of a YAML file: its sections, and the list of engines in its own spelling."""

from __future__ import annotations

import json
from dataclasses import replace

from pydantic import JsonValue

from kolosal.config.errors import ConfigError
from kolosal.config.settings import SETTING_NAMES, Settings
from kolosal.config.sources import SettingsSource
from kolosal.config.validation import (
    ENTRY_KEYS,
    RULE_KEYS,
    absolute_path,
    refuse_duplicates,
    suggestion,
    validated,
)
from kolosal.config.yaml_file import KeyPath, YamlFile, dotted
from kolosal.engines.parameters import LLAMACPP

_KEYS = [name.key for name in SETTING_NAMES]
_SECTIONS = sorted(Settings.model_fields)
_ALIASES = (
    {key.rpartition(".")[2]: key for key in [*_KEYS, "models"]}
    | {name.flag: name.key for name in SETTING_NAMES}
    | {section: section for section in _SECTIONS}
)
"""What people write for a key who know the setting but not its section, or not its name here."""


def from_file(file: YamlFile) -> SettingsSource:
    """The settings of a YAML file. Relative model paths are relative to the file's folder."""
    given: dict[str, JsonValue] = {}
    origins: dict[str, str] = {}
    for section in _mapping(file, ()):
        if section not in _SECTIONS:
            raise _unknown(file, (section,))
        if section == "models":
            given["models"] = _entries(file)
            continue
        given[section] = body = _mapping(file, (section,))
        for name in body:
            if f"{section}.{name}" not in _KEYS:
                raise _unknown(file, (section, name))
            origins[f"{section}.{name}"] = file.at((section, name))

    def place(loc: KeyPath) -> str:
        return _place(file, _key_path(file, loc))

    # JSON mode is strict about types and still takes a list for a tuple and text for an enum
    settings = validated(lambda: Settings.model_validate_json(json.dumps(given), strict=True), place)
    refuse_duplicates(settings.models, lambda index: place(("models", index, "id")))
    models = tuple(
        replace(entry, path=absolute_path(entry.path, file.path.parent, place(("models", index, "path"))))
        for index, entry in enumerate(settings.models)
    )
    origins |= {f"models[{entry.id}]": file.at(("models", index)) for index, entry in enumerate(models)}
    return SettingsSource.of(settings, origins, models)


def _mapping(file: YamlFile, key: KeyPath) -> dict[str, JsonValue]:
    """A section. One whose every line is commented out is null in YAML, and empty here."""
    value = file.values
    for part in key:
        assert isinstance(value, dict)  # noqa: S101 - the caller went through here before
        value = value[str(part)]
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{_place(file, key)}: must be a mapping of keys to values")
    return value


def _entries(file: YamlFile) -> JsonValue:
    """The `models` section in the form of `ModelEntry`."""
    entries = _mapping(file, ())["models"]
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ConfigError(
            f"{file.at(('models',))}: models: must be a list of engines, each beginning with '- '"
        )
    return [
        _entry(file, ("models", index), entry) if isinstance(entry, dict) else entry
        for index, entry in enumerate(entries)
    ]


def _entry(file: YamlFile, at: KeyPath, written: dict[str, JsonValue]) -> JsonValue:
    entry = dict(written)
    parameters = entry.pop("load_params", None) or {}
    if "load_at_startup" in entry:
        if "load_immediately" in entry:
            raise _said_twice(file, (*at, "load_at_startup"), "load_immediately")
        entry["load_immediately"] = entry.pop("load_at_startup")
    if "main_gpu_id" in entry and isinstance(parameters, dict):
        if "main_gpu_id" in parameters:
            raise _said_twice(file, (*at, "load_params", "main_gpu_id"), "main_gpu_id")
        parameters = {**parameters, "main_gpu_id": entry.pop("main_gpu_id")}
    for name in ("parameters", "rules"):  # our own names
        if name in entry:
            raise _unknown(file, (*at, name))
    if not entry.get("path") and "id" in entry and entry.get("backend", LLAMACPP) == LLAMACPP:
        raise ConfigError(f"{_place(file, (*at, 'path'))}: is missing")
    rules = {name: entry.pop(name) for name in RULE_KEYS if name in entry}
    return {**entry, "parameters": parameters, "rules": rules}


def _key_path(file: YamlFile, loc: KeyPath) -> KeyPath:
    """Where a field that was found wrong stands in the file."""
    if not loc:
        return ()
    if loc[0] != "models":
        return loc[:2]
    key = tuple("load_params" if part == "parameters" else part for part in loc if part != "rules")
    elsewhere = {"main_gpu_id": (*key[:2], "main_gpu_id"), "load_immediately": (*key[:2], "load_at_startup")}
    moved = elsewhere.get(str(key[-1]), key)
    return moved if moved in file.lines and key not in file.lines else key


def _said_twice(file: YamlFile, key: KeyPath, other: str) -> ConfigError:
    return ConfigError(f"{file.at(key)}: {dotted(key)}: means the same as '{other}', which is given too")


def _unknown(file: YamlFile, key: KeyPath) -> ConfigError:
    known, aliases = _SECTIONS, _ALIASES
    if key[0] == "models":
        known, aliases = [*ENTRY_KEYS], {}
    elif len(key) > 1:
        known = [each for each in _KEYS if each.startswith(f"{key[0]}.")]
    return ConfigError(f"{_place(file, key)}: unknown key{suggestion(str(key[-1]), known, aliases)}")


def _place(file: YamlFile, key: KeyPath) -> str:
    return f"{file.at(key)}: {dotted(key)}" if key else file.at(())
