"""`kolosal config check`: whether a daemon would start with this configuration, without starting one."""

from __future__ import annotations

import typer

from kolosal.commands.errors import CommandError
from kolosal.config.load import Configuration, process_environment
from kolosal.conversation.startup import load_conversation
from kolosal.errors import KolosalError
from kolosal.models.settings_file import read_models_file
from kolosal.paths import Anywhere, engine_config
from kolosal.security.startup_checks import check_security


def config_check(configuration: Configuration) -> None:
    """Say that all is well.

    Raises:
        ConfigError: keys, TLS files or `models.yaml` cannot be used, or other machines could use the daemon without a key.
        CommandError: models of it cannot be loaded; the daemon would start without them.
    """
    settings, environ = configuration.settings, process_environment()
    read_models_file(configuration.models_file)
    check_security(settings, environ, load_conversation(environ).api_key)
    wrong = []
    for entry in settings.models:
        try:
            engine_config(
                entry.id,
                entry.path,
                entry.parameters,
                roots=Anywhere.AT_ALL,
                backend=entry.backend,
                options=entry.backend_options,
            )
        except KolosalError as exc:
            wrong.append(f"{configuration.origins[f'models[{entry.id}]']}: {entry.id}: {exc.message}")
    if wrong:
        raise CommandError("\n".join(wrong))
    given = sum(origin != "default" for origin in configuration.origins.values()) - len(settings.models)
    n_models = len(settings.models)
    typer.echo(f"OK: {configuration.file or 'no file'}: {given} settings given, {n_models} engines")
