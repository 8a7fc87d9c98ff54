"""Settings by the names of their variables, and commands of workers under other settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kolosal.config.settings import SETTING_NAMES, Settings
from kolosal.engines.ipc.command import WorkerCommand


def sections(**settings: object) -> dict[str, Any]:
    """Settings by the names of their variables, `max_body_bytes` or `log_level`, in the form of `Settings`."""
    names = {name.flag: name.key for name in SETTING_NAMES}
    nested: dict[str, Any] = {}
    for flag, value in settings.items():
        if flag == "models":
            nested[flag] = value
        else:
            section, _, name = names[flag].partition(".")
            nested.setdefault(section, {})[name] = value
    return nested


def settings_of(**settings: object) -> Settings:
    """Valid settings, by the names of their variables."""
    return Settings.model_validate(sections(**settings))


def with_settings(command: WorkerCommand, **settings: object) -> WorkerCommand:
    """A command under other settings of engines, also such as no operator may have: times shorter than a second."""
    return replace(command, settings=command.settings.model_copy(update=settings))
