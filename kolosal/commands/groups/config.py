"""`kolosal config`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

import typer

from kolosal.commands.groups.options import ConfigFile, Json, Url, ask

app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


@app.command("show", epilog="Example: kolosal config show --config server.yaml")
def config_show(as_json: Json = False, config: ConfigFile = None) -> None:
    """Show every setting, its value, and where that came from."""
    from kolosal.commands import config_show as command
    from kolosal.commands.address import daemon_configuration

    command.config_show(daemon_configuration(config), as_json=as_json)


@app.command("check", epilog="Example: kolosal config check --config server.yaml")
def config_check(config: ConfigFile = None) -> None:
    """Check whether a daemon would start with this configuration, and its models be found. Starts nothing."""
    from kolosal.commands import config_check as command
    from kolosal.commands.address import daemon_configuration

    command.config_check(daemon_configuration(config))


@app.command("reload", epilog="Example: kolosal config reload")
def config_reload(url: Url = None, config: ConfigFile = None) -> None:
    """Have the running daemon read its configuration again, and say what of it needs a restart."""
    from kolosal.commands.config_reload import config_reload as reload

    ask(url, config, reload)
