"""Configuration: the settings in force, and where each value came from.

Owns the order of precedence (defaults, then the YAML file, then `KOLOSAL_*` variables, then flags) and the search for
the file. The only reader of `os.environ`. Knows nothing of what the settings do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kolosal.config.file import ConfigError, read_yaml
from kolosal.config.inference import from_inference, inference_variables
from kolosal.config.settings import MAX_MODELS, ModelEntry, Settings, variable_name, yaml_key
from kolosal.config.sources import Source, from_environment, from_file, from_flags

__all__ = [
    "ConfigError",
    "Configuration",
    "ModelEntry",
    "SettingRow",
    "Settings",
    "config_file_path",
    "load_settings",
    "process_environment",
    "state_folder",
]

CONFIG_VARIABLE = "KOLOSAL_CONFIG"
"""Path of the configuration file, where `--config` gives none."""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of `kolosal config show`."""

    key: str
    """`section.key`, as in the file."""
    variable: str | None
    """The environment variable; None for a setting that has none."""
    value: object
    origin: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, and for each field (and `models.<id>` for each engine) where its value came from."""

    settings: Settings
    origins: Mapping[str, str]
    """`default`, `path:line`, the name of a variable, or a flag."""
    file: Path | None

    def rows(self) -> list[SettingRow]:
        """Every setting in the order of `Settings`; each engine is a row of its own."""
        rows = [
            SettingRow(
                yaml_key(name),
                variable_name(name),
                getattr(self.settings, name),
                self.origins[name],
                field.description or "",
            )
            for name, field in Settings.model_fields.items()
            if name != "models"
        ]
        engines = (
            SettingRow(
                f"models[{entry.id}]",
                None,
                entry,
                self.origins[f"models.{entry.id}"],
                "An engine to add at start.",
            )
            for entry in self.settings.models
        )
        return [*rows, *engines]


def process_environment() -> dict[str, str]:
    """A copy of this process's environment. The rest of the program asks here instead of reading it itself."""
    return dict(os.environ)


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    models: Sequence[str] = (),
    config_path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    platform: str = sys.platform,
    base: Source | None = None,
) -> Configuration:
    """Read and merge all sources.

    `flags` are fields of `Settings` (None: not given); `models` are `ID=PATH` pairs, which add to the engines of the
    file or replace the one of the same id. `base` wins over the defaults only.

    Raises:
        ConfigError: a source cannot be read, or holds something that is unknown, mistyped or out of range.
    """
    environ = os.environ if environ is None else environ
    path = config_file_path(config_path, environ, platform)
    given = [base] if base is not None else []
    given += [from_file(read_yaml(path))] if path is not None else []
    known = {entry.id: entry for source in given for entry in source.settings.models}
    folder = Path.cwd()
    given += [from_inference(inference_variables(environ, folder), known, folder)]
    given += [from_environment(environ), from_flags(flags or {}, models)]

    values: dict[str, object] = {}
    entries: dict[str, ModelEntry] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for source in given:
        values |= {name: getattr(source.settings, name) for name in source.settings.model_fields_set}
        entries |= {entry.id: entry for entry in source.settings.models}
        origins |= source.origins
    if len(entries) > MAX_MODELS:
        raise ConfigError(
            f"--model: {len(entries)} engines with those of the file, at most {MAX_MODELS} are allowed"
        )
    settings = Settings.model_validate({**values, "models": tuple(entries.values())})
    return Configuration(settings, origins, path)


def config_file_path(given: Path | None, environ: Mapping[str, str], platform: str) -> Path | None:
    """The file to read: the one that was named, else the first that exists of ./config.yaml and the user's own."""
    named = given or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named.expanduser().absolute()
    candidates = [Path("config.yaml").absolute()]
    if (folder := _user_folder(environ, platform)) is not None:
        candidates.append(folder / "config.yaml")
    return next((path for path in candidates if _exists(path)), None)


def state_folder(settings: Settings, environ: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Where to remember things over restarts: as configured, else the user's own folder; None where there is none."""
    if settings.state_dir is not None:
        return Path(settings.state_dir).expanduser().absolute()
    if platform == "win32":
        return Path(environ["LOCALAPPDATA"], "Kolosal") if environ.get("LOCALAPPDATA") else None
    if platform != "darwin" and environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"], "kolosal")
    if not environ.get("HOME"):
        return None
    within = "Library/Application Support/Kolosal" if platform == "darwin" else ".local/state/kolosal"
    return Path(environ["HOME"], within)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder we may not look into, as for services that run as another user
        return False


def _user_folder(environ: Mapping[str, str], platform: str) -> Path | None:
    """None where the environment does not say who the user is, as in some containers and services."""
    if platform == "win32":
        return Path(environ["APPDATA"], "Kolosal") if environ.get("APPDATA") else None
    if platform != "darwin" and environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"], "kolosal")
    if not environ.get("HOME"):
        return None
    within = "Library/Application Support/Kolosal" if platform == "darwin" else ".config/kolosal"
    return Path(environ["HOME"], within)
