"""The three sources of settings: a YAML file, the environment, the command line.

Each function turns one source into valid settings, of which only the fields that it gave count, and says where each
stood. Owns the words of every configuration error. Knows no precedence: `config` merges.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from kolosal.config.file import ConfigError, KeyPath, YamlFile, dotted
from kolosal.config.settings import ENV_PREFIX, ModelEntry, Settings, variable_name, yaml_key
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import LoadingParameters

NOT_SETTINGS = frozenset({"KOLOSAL_CONFIG", "KOLOSAL_TEST_MODEL", "KOLOSAL_TEST_CGROUP"})
"""Variables with our prefix that set nothing: the file's path, and the model and the control group that the tests use."""

_FIELD_BY_KEY = {yaml_key(name): name for name in Settings.model_fields}
_FIELD_BY_VARIABLE = {variable_name(name): name for name in Settings.model_fields if name != "models"}
_SECTIONS = sorted({key.partition(".")[0] for key in _FIELD_BY_KEY})
_RULE_KEYS = tuple(field.name for field in dataclasses.fields(Rules))
_ENTRY_KEYS = (
    "id",
    "path",
    "load_immediately",
    "load_at_startup",
    "main_gpu_id",
    "load_params",
    *_RULE_KEYS,
)
_PARAMETER_KEYS = tuple(field.name for field in dataclasses.fields(LoadingParameters))


@dataclass(frozen=True, slots=True)
class Source:
    """What one source gave: the fields in `settings.model_fields_set`, and where each stood."""

    settings: Settings
    origins: dict[str, str]


def from_file(file: YamlFile) -> Source:
    """The settings of a YAML file. Relative model paths are relative to the file's folder."""
    given: dict[str, JsonValue] = {}
    origins: dict[str, str] = {}
    for section, body in _mapping(file, ()).items():
        if section not in _SECTIONS:
            raise _unknown(file, (section,))
        if section == "models":
            given["models"] = _entries(file)
            continue
        for key in _mapping(file, (section,)):
            name = _FIELD_BY_KEY.get(f"{section}.{key}")
            if name is None:
                raise _unknown(file, (section, key))
            assert isinstance(body, dict)  # noqa: S101 - _mapping saw to it
            given[name] = body[key]
            origins[name] = file.at((section, key))

    def place(loc: KeyPath) -> str:
        return _place(file, _written(file, loc))

    # JSON mode is strict about types and still takes a list for a tuple and text for an enum
    settings = _valid(lambda: Settings.model_validate_json(json.dumps(given), strict=True), place)
    _refuse_twins(settings.models, lambda index: place(("models", index, "id")))
    entries = tuple(
        dataclasses.replace(
            entry, path=_absolute(entry.path, file.path.parent, place(("models", index, "path")))
        )
        for index, entry in enumerate(settings.models)
    )
    origins |= {f"models.{entry.id}": file.at(("models", index)) for index, entry in enumerate(entries)}
    return Source(settings.model_copy(update={"models": entries} if entries else {}), origins)


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
        return tuple(yaml_key(str(loc[0])).split("."))
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
    within = [name for name in _FIELD_BY_KEY if name.startswith(f"{key[0]}.")]
    return ConfigError(f"{_place(file, key)}: unknown key{_suggestion(str(key[1]), _spellings(), within)}")


def _spellings() -> dict[str, str]:
    """What people write for a key who know the setting but not its section, or not its name here."""
    keys = {key.rpartition(".")[2]: key for key in _FIELD_BY_KEY}
    return (
        {section: section for section in _SECTIONS}
        | keys
        | {name: key for key, name in _FIELD_BY_KEY.items()}
    )


def _place(file: YamlFile, key: KeyPath) -> str:
    return f"{file.at(key)}: {dotted(key)}" if key else file.at(())


def from_environment(environ: Mapping[str, str]) -> Source:
    """The settings of `KOLOSAL_*` variables. An empty one counts as not set, as compose files write it."""
    given: dict[str, str] = {}
    for variable in sorted(environ):
        if variable.startswith(ENV_PREFIX) and variable not in NOT_SETTINGS:
            if variable not in _FIELD_BY_VARIABLE:
                hint = _suggestion(variable, _same(_FIELD_BY_VARIABLE))
                raise ConfigError(f"{variable} (environment): unknown variable{hint}")
            if environ[variable]:
                given[_FIELD_BY_VARIABLE[variable]] = environ[variable]
    settings = _valid(
        lambda: Settings.model_validate_strings(given),
        lambda loc: f"{variable_name(str(loc[0]))} (environment)",
    )
    return Source(settings, {name: variable_name(name) for name in given})


def from_flags(flags: Mapping[str, object], models: Sequence[str]) -> Source:
    """The settings of flags, and engines given as `ID=PATH`; relative paths are relative to the current folder."""
    given = {name: value for name, value in flags.items() if value is not None}
    origins = {name: "--" + name.replace("_", "-") for name in given}
    entries: list[dict[str, str]] = []
    for text in models:
        engine_id, equals, path = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--model: must be ID=PATH, not {text!r}")
        entries.append({"id": engine_id, "path": _absolute(path, Path.cwd(), "--model")})
        origins[f"models.{engine_id}"] = "--model"
    settings = _valid(
        lambda: Settings.model_validate({**given, **({"models": entries} if entries else {})}),
        lambda loc: origins.get(str(loc[0]), "--model"),
    )
    _refuse_twins(settings.models, lambda _: "--model")
    return Source(settings, origins)


def _valid(validate: Callable[[], Settings], place: Callable[[KeyPath], str]) -> Settings:
    try:
        return validate()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{place(first['loc'])}: {_words(first)}") from exc


def _words(error: ErrorDetails) -> str:
    """What is wrong, in terms of the value that was given."""
    if error["loc"][:1] == ("api_key",):  # whatever it is, it may be a secret
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
