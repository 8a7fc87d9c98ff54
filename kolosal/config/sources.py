"""The three sources of settings: a YAML file, the environment, the command line.

Each function turns one source into what it gives, valid, and where each value stood; `merged` puts them together. Owns the
words of every configuration error. Knows no precedence: `load_settings` says the order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from kolosal.config.file import ConfigError, KeyPath, YamlFile, dotted
from kolosal.config.models import MAX_MODELS, ModelEntry
from kolosal.config.section import Section
from kolosal.config.settings import ENV_PREFIX, SETTING_NAMES, Settings
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import LoadingParameters

NOT_SETTINGS = frozenset({"KOLOSAL_CONFIG", "KOLOSAL_TEST_MODEL", "KOLOSAL_TEST_CGROUP"})
"""Variables with our prefix that set nothing: the file's path, and the model and the control group that the tests use."""

_BY_KEY = {name.key: name for name in SETTING_NAMES}
_BY_VARIABLE = {name.variable: name for name in SETTING_NAMES}
_BY_FLAG = {name.flag: name for name in SETTING_NAMES}
_SECTIONS = sorted(Settings.model_fields)
_RULE_KEYS = tuple(field.name for field in fields(Rules))
_ENTRY_KEYS = (
    "id",
    "path",
    "load_immediately",
    "load_at_startup",
    "main_gpu_id",
    "load_params",
    *_RULE_KEYS,
)
_PARAMETER_KEYS = tuple(field.name for field in fields(LoadingParameters))


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """What one source gave, valid."""

    values: Mapping[str, object]
    """By `section.key`."""
    models: tuple[ModelEntry, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each value stood, by `section.key`, and each engine, by `models[id]`."""


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
            if f"{section}.{name}" not in _BY_KEY:
                raise _unknown(file, (section, name))
            origins[f"{section}.{name}"] = file.at((section, name))

    def place(loc: KeyPath) -> str:
        return _place(file, _written(file, loc))

    # JSON mode is strict about types and still takes a list for a tuple and text for an enum
    settings = _valid(lambda: Settings.model_validate_json(json.dumps(given), strict=True), place)
    _refuse_twins(settings.models, lambda index: place(("models", index, "id")))
    models = tuple(
        replace(entry, path=_absolute(entry.path, file.path.parent, place(("models", index, "path"))))
        for index, entry in enumerate(settings.models)
    )
    origins |= {f"models[{entry.id}]": file.at(("models", index)) for index, entry in enumerate(models)}
    return SettingsSource(_given_values(settings), models, origins)


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
            raise _twice(file, (*at, "load_at_startup"), "load_immediately")
        entry["load_immediately"] = entry.pop("load_at_startup")
    if "main_gpu_id" in entry and isinstance(parameters, dict):
        if "main_gpu_id" in parameters:
            raise _twice(file, (*at, "load_params", "main_gpu_id"), "main_gpu_id")
        parameters = {**parameters, "main_gpu_id": entry.pop("main_gpu_id")}
    for name in ("parameters", "rules"):  # our own names
        if name in entry:
            raise _unknown(file, (*at, name))
    rules = {name: entry.pop(name) for name in _RULE_KEYS if name in entry}
    return {**entry, "parameters": parameters, "rules": rules}


def _written(file: YamlFile, loc: KeyPath) -> KeyPath:
    """Where a field that was found wrong stands in the file."""
    if not loc:
        return ()
    if loc[0] != "models":
        return loc[:2]
    key = tuple("load_params" if part == "parameters" else part for part in loc if part != "rules")
    elsewhere = {"main_gpu_id": (*key[:2], "main_gpu_id"), "load_immediately": (*key[:2], "load_at_startup")}
    moved = elsewhere.get(str(key[-1]), key)
    return moved if moved in file.lines and key not in file.lines else key


def _twice(file: YamlFile, key: KeyPath, other: str) -> ConfigError:
    return ConfigError(f"{file.at(key)}: {dotted(key)}: means the same as '{other}', which is given too")


def _unknown(file: YamlFile, key: KeyPath) -> ConfigError:
    if key[0] == "models":
        return ConfigError(f"{_place(file, key)}: unknown key{_suggestion(str(key[-1]), _same(_ENTRY_KEYS))}")
    if len(key) == 1:
        return ConfigError(
            f"{_place(file, key)}: unknown key{_suggestion(str(key[0]), _spellings(), _SECTIONS)}"
        )
    within = [known for known in _BY_KEY if known.startswith(f"{key[0]}.")]
    return ConfigError(f"{_place(file, key)}: unknown key{_suggestion(str(key[1]), _spellings(), within)}")


def _spellings() -> dict[str, str]:
    """What people write for a key who know the setting but not its section, or not its name here."""
    keys = {key.rpartition(".")[2]: key for key in [*_BY_KEY, "models"]}
    return _same(_SECTIONS) | keys | {flag: name.key for flag, name in _BY_FLAG.items()}


def _place(file: YamlFile, key: KeyPath) -> str:
    return f"{file.at(key)}: {dotted(key)}" if key else file.at(())


def from_environment(environ: Mapping[str, str]) -> SettingsSource:
    """The settings of `KOLOSAL_*` variables. An empty one counts as not set, as compose files write it."""
    given: dict[str, str] = {}
    for variable in sorted(environ):
        if variable.startswith(ENV_PREFIX) and variable not in NOT_SETTINGS:
            if variable not in _BY_VARIABLE:
                hint = _suggestion(variable, _same(_BY_VARIABLE))
                raise ConfigError(f"{variable} (environment): unknown variable{hint}")
            if environ[variable]:
                given[_BY_VARIABLE[variable].key] = environ[variable]
    settings = _valid(
        lambda: Settings.model_validate_strings(_nested(given)),
        lambda loc: f"{_BY_KEY[dotted(loc[:2])].variable} (environment)",
    )
    return SettingsSource(_given_values(settings), origins={key: _BY_KEY[key].variable for key in given})


def from_flags(flags: Mapping[str, object], models: Sequence[str]) -> SettingsSource:
    """The settings of flags, and engines given as `ID=PATH`; relative paths are relative to the current folder."""
    given = {_BY_FLAG[flag].key: value for flag, value in flags.items() if value is not None}
    origins = {key: "--" + _BY_KEY[key].flag.replace("_", "-") for key in given}
    entries: list[dict[str, str]] = []
    for text in models:
        engine_id, equals, path = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--model: must be ID=PATH, not {text!r}")
        entries.append({"id": engine_id, "path": _absolute(path, Path.cwd(), "--model")})
        origins[f"models[{engine_id}]"] = "--model"
    settings = _valid(
        lambda: Settings.model_validate({**_nested(given), "models": entries}),
        lambda loc: origins.get(dotted(loc[:2]), "--model"),
    )
    _refuse_twins(settings.models, lambda _: "--model")
    return SettingsSource(_given_values(settings), settings.models, origins)


def merged(sources: Iterable[SettingsSource]) -> Settings:
    """What several sources give together: a later one wins, and an engine takes the place of its namesake."""
    values: dict[str, object] = {}
    entries: dict[str, ModelEntry] = {}
    for source in sources:
        values |= source.values
        entries |= {entry.id: entry for entry in source.models}
    if len(entries) > MAX_MODELS:
        raise ConfigError(
            f"--model: {len(entries)} engines with those of the file, at most {MAX_MODELS} are allowed"
        )
    return Settings.model_validate({**_nested(values), "models": tuple(entries.values())})


def _nested(values: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Values by `section.key`, as sections."""
    sections: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return sections


def _given_values(settings: Settings) -> dict[str, object]:
    """What is not left at its default, by `section.key`; engines are apart."""
    return {
        f"{title}.{name}": getattr(section, name)
        for title, section in settings
        if isinstance(section, Section)
        for name in section.model_fields_set
    }


def _valid(validate: Callable[[], Settings], place: Callable[[KeyPath], str]) -> Settings:
    try:
        return validate()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{place(first['loc'])}: {_words(first)}") from exc


def _words(error: ErrorDetails) -> str:
    """What is wrong, in terms of the value that was given."""
    if error["loc"][:2] == ("auth", "api_key"):  # whatever it is, it may be a secret
        return "must be text of 16 to 512 characters"
    value = error["input"]
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = _PARAMETER_KEYS if "parameters" in error["loc"] else _ENTRY_KEYS
            return f"unknown key{_suggestion(str(error['loc'][-1]), _same(known))}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return "is missing"
        case "dataclass_type":
            text = "must be a mapping of keys to values"
        case "bool_type" | "bool_parsing":
            text = "must be true or false"
        case "string_pattern_mismatch":
            text = "holds a character that is not allowed here"
        case "string_type" if isinstance(value, int | float):
            return f"must be text, not {value!r}: put it in quotes"
        case _:
            text = re.sub(r"^\w+ should ", "must ", error["msg"])
    return text if isinstance(value, dict | list) else f"{text}, not {repr(value)[:80]}"


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _suggestion(given: str, known: Mapping[str, str], otherwise: Iterable[str] | None = None) -> str:
    """`: did you mean 'x'?`, or what there is. `known` maps what may be written to what is right."""
    if close := get_close_matches(given, known, n=1, cutoff=0.7):
        return f": did you mean '{known[close[0]]}'?"
    return f": known are {', '.join(otherwise or known.values())}"


def _refuse_twins(entries: Iterable[ModelEntry], place: Callable[[int], str]) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if entry.id in seen:
            raise ConfigError(f"{place(index)}: the id '{entry.id}' is given twice")
        seen.add(entry.id)


def _absolute(path: str, folder: Path, place: str) -> str:
    if "://" in path:
        raise ConfigError(f"{place}: must be a file on this machine, not {path[:80]!r}")
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as exc:  # ~someone who does not exist
        raise ConfigError(f"{place}: {exc}") from exc
