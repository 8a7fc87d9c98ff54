"""Where settings come from: what one source gives, and what several give together.

Here are the environment and the command line; `yaml_source` is the file, `older_server` that one's variables. Knows no
precedence: `load_settings` says the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kolosal.config.errors import ConfigError
from kolosal.config.models import MAX_MODELS, ModelEntry
from kolosal.config.section import SettingsSection
from kolosal.config.settings import ENV_PREFIX, SETTING_NAMES, Settings
from kolosal.config.validation import absolute_path, refuse_duplicates, suggestion, validated
from kolosal.config.yaml_file import dotted

NOT_SETTINGS = frozenset({"KOLOSAL_CONFIG", "KOLOSAL_TEST_MODEL", "KOLOSAL_TEST_CGROUP"})
"""Variables with our prefix that set nothing: the file's path, and the model and the control group that the tests use."""

_BY_KEY = {name.key: name for name in SETTING_NAMES}
_BY_VARIABLE = {name.variable: name for name in SETTING_NAMES}
_BY_FLAG = {name.flag: name for name in SETTING_NAMES}


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """What one source gave, valid."""

    values: Mapping[str, object]
    """By `section.key`."""
    models: tuple[ModelEntry, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each value stood, by `section.key`, and each engine, by `models[id]`."""

    @classmethod
    def of(
        cls, settings: Settings, origins: Mapping[str, str], models: tuple[ModelEntry, ...] | None = None
    ) -> SettingsSource:
        """What these settings do not leave at the default; `models` take the place of theirs."""
        given = {
            f"{title}.{name}": getattr(section, name)
            for title, section in settings
            if isinstance(section, SettingsSection)
            for name in section.model_fields_set
        }
        return cls(given, settings.models if models is None else models, origins)


def from_environment(environ: Mapping[str, str]) -> SettingsSource:
    """The settings of `KOLOSAL_*` variables. An empty one counts as not set, as compose files write it."""
    given: dict[str, str] = {}
    for variable in sorted(environ):
        if variable.startswith(ENV_PREFIX) and variable not in NOT_SETTINGS:
            if variable not in _BY_VARIABLE:
                hint = suggestion(variable, _BY_VARIABLE)
                raise ConfigError(f"{variable} (environment): unknown variable{hint}")
            if environ[variable]:
                given[_BY_VARIABLE[variable].key] = environ[variable]
    settings = validated(
        lambda: Settings.model_validate_strings(_nested(given)),
        lambda loc: f"{_BY_KEY[dotted(loc[:2])].variable} (environment)",
    )
    return SettingsSource.of(settings, {key: _BY_KEY[key].variable for key in given})


def from_flags(flags: Mapping[str, object], models: Sequence[str]) -> SettingsSource:
    """The settings of flags, and engines given as `ID=PATH`; relative paths are relative to the current folder."""
    given = {_BY_FLAG[flag].key: value for flag, value in flags.items() if value is not None}
    origins = {key: "--" + _BY_KEY[key].flag.replace("_", "-") for key in given}
    entries: list[dict[str, str]] = []
    for text in models:
        engine_id, equals, path = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--model: must be ID=PATH, not {text!r}")
        entries.append({"id": engine_id, "path": absolute_path(path, Path.cwd(), "--model")})
        origins[f"models[{engine_id}]"] = "--model"
    settings = validated(
        lambda: Settings.model_validate({**_nested(given), "models": entries}),
        lambda loc: origins.get(dotted(loc[:2]), "--model"),
    )
    refuse_duplicates(settings.models, lambda _: "--model")
    return SettingsSource.of(settings, origins)


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
