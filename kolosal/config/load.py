"""Loading the configuration: the settings in force, and where each value came from.

Owns the order of precedence (defaults, the conversation engine's files, the YAML file, `INFERENCE_*` variables, `KOLOSAL_*`
variables, flags; a later one wins) and the search for the file. The only module that touches `os.environ`: all others are
given an environment, or take a copy by `process_environment`. Knows nothing of what the settings do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kolosal.config.older_server import from_inference, inference_variables
from kolosal.config.settings import SETTING_NAMES, Settings
from kolosal.config.sources import SettingsSource, from_environment, from_flags, merged
from kolosal.config.yaml_file import exists, read_yaml
from kolosal.config.yaml_source import from_file

CONFIG_VARIABLE = "KOLOSAL_CONFIG"
"""Path of the configuration file, where `--config` gives none."""


MODELS_FILE_NAME = "models.yaml"
"""What is said of models lies beside the configuration."""


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
    """The settings, and where each value came from."""

    settings: Settings
    origins: Mapping[str, str]
    """By `section.key`, and `models[id]` for each engine: `default`, `path:line`, the name of a variable, or a flag."""
    file: Path | None
    models_file: Path | None = None
    """Where `models.yaml` is, or would be."""

    def rows(self) -> list[SettingRow]:
        """Every setting in the order of the documentation; each engine is a row of its own."""
        rows = [
            SettingRow(
                name.key,
                name.variable,
                self.settings.value(name.key),
                self.origins[name.key],
                name.meaning,
            )
            for name in SETTING_NAMES
        ]
        for entry in self.settings.models:
            key = f"models[{entry.id}]"
            rows.append(SettingRow(key, None, entry, self.origins[key], "An engine to add at start."))
        return rows


def process_environment() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    models: Sequence[str] = (),
    config_path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    platform: str = sys.platform,
    base: SettingsSource | None = None,
) -> Configuration:
    """Read and merge all sources.

    `flags` are by `SettingName.flag` (None: not given); `models` are `ID=PATH` pairs, which add to the engines of the
    file or replace the one of the same id. `base` wins over the defaults only. Without `environ` it is this process's.

    Raises:
        ConfigError: a source cannot be read, or holds something that is unknown, mistyped or out of range.
    """
    environ = os.environ if environ is None else environ
    path = config_file_path(config_path, environ, platform)
    sources = [base] if base is not None else []
    sources += [from_file(read_yaml(path))] if path is not None else []
    known = {entry.id: entry for source in sources for entry in source.models}
    folder = Path.cwd()
    sources += [from_inference(inference_variables(environ, folder), known, folder)]
    sources += [from_environment(environ), from_flags(flags or {}, models)]
    origins = {name.key: "default" for name in SETTING_NAMES}
    for source in sources:
        origins |= source.origins
    settings = merged(sources)
    return Configuration(settings, origins, path, _models_file(settings, path, environ, platform))


def config_file_path(given: Path | None, environ: Mapping[str, str], platform: str) -> Path | None:
    """The file to read: the one that was named, else the first that exists of ./config.yaml and the user's own."""
    named = given or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named.expanduser().absolute()
    candidates = [Path("config.yaml").absolute()]
    if (folder := _user_config_folder(environ, platform)) is not None:
        candidates.append(folder / "config.yaml")
    return next((path for path in candidates if exists(path)), None)


def _models_file(
    settings: Settings, config: Path | None, environ: Mapping[str, str], platform: str
) -> Path | None:
    """As configured, else beside the configuration, else in the user's own folder; None where there is none."""
    if settings.library.models_file is not None:
        return Path(settings.library.models_file).expanduser().absolute()
    folder = config.parent if config is not None else _user_config_folder(environ, platform)
    return None if folder is None else folder / MODELS_FILE_NAME


def _user_config_folder(environ: Mapping[str, str], platform: str) -> Path | None:
    return _user_folder(environ, platform, "APPDATA", "XDG_CONFIG_HOME", ".config")


def state_folder(settings: Settings, environ: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Where to remember things over restarts: as configured, else the user's own folder; None where there is none."""
    if settings.server.state_dir is not None:
        return Path(settings.server.state_dir).expanduser().absolute()
    return _user_folder(environ, platform, "LOCALAPPDATA", "XDG_STATE_HOME", ".local/state")


def data_folder(settings: Settings, environ: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Where models are kept: below the configured folder of what is remembered, else the user's own; None where there is none."""
    if settings.server.state_dir is not None:
        return Path(settings.server.state_dir).expanduser().absolute()
    return _user_folder(environ, platform, "LOCALAPPDATA", "XDG_DATA_HOME", ".local/share")


def _user_folder(
    environ: Mapping[str, str], platform: str, windows: str, xdg: str, fallback: str
) -> Path | None:
    """Our folder in the user's, by the variable of Windows or of the XDG base directory specification, and its default.

    None where the environment does not say who the user is, as in some containers and services.
    """
    if platform == "win32":
        return Path(environ[windows], "Kolosal") if environ.get(windows) else None
    if platform != "darwin" and environ.get(xdg):
        return Path(environ[xdg], "kolosal")
    if not environ.get("HOME"):
        return None
    within = "Library/Application Support/Kolosal" if platform == "darwin" else f"{fallback}/kolosal"
    return Path(environ["HOME"], within)
