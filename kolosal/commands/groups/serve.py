"""`kolosal serve`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kolosal.commands.groups.options import ConfigFile

if TYPE_CHECKING:
    from kolosal.config.load import Configuration

app = typer.Typer()


@app.command(epilog="Example: kolosal serve --port 9000 --model tiny=models/tiny.gguf")
def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="TCP port to listen on.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="ID=PATH", help="An engine to add at start; can be repeated."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Join this Ray cluster: HOST:PORT, or auto for the one of this machine."
        ),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    log_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write log lines to this file as well.")
    ] = None,
) -> None:
    """Start the daemon and stay in the foreground. Ctrl-C stops it, after the running answers."""
    from kolosal.commands.address import daemon_configuration

    flags = {
        "host": host,
        "port": port,
        "cluster": cluster,
        "log_level": log_level,
        "log_format": log_format,
        "log_file": log_file,
    }

    def read() -> Configuration:
        return daemon_configuration(config, flags, models=model or ())

    configuration = read()
    from kolosal.commands import serve as command  # the server, not before the settings are right

    raise typer.Exit(command.serve(configuration, read))
