"""`kolosal service`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The daemon as a service: systemd, launchd, or Windows' service control manager.",
    no_args_is_help=True,
)

ServiceName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The service's name; else kolosal.")
]
OwnService = Annotated[
    bool, typer.Option("--user", help="A service of your own, without root; not on Windows.")
]


@app.command("install", epilog="Example: kolosal service install --config /etc/kolosal/config.yaml")
def service_install(
    name: ServiceName = None,
    user: OwnService = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Its configuration file.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="TCP port to listen on.")] = None,
    account: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The user it runs as; else one with as few rights as can be."),
    ] = None,
) -> None:
    """Install the daemon as a service that starts with the system. What fails leaves nothing behind."""
    from kolosal.commands import service as command

    named = name or command.default_name()
    command.install(named, config=config, port=port, user=user, account=account)


@app.command("uninstall", epilog="Example: kolosal service uninstall")
def service_uninstall(
    name: ServiceName = None,
    user: OwnService = False,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Keep its API keys and the list of its engines.")
    ] = False,
) -> None:
    """Stop the service and remove it, with all that it wrote. A configuration file stays."""
    from kolosal.commands import service as command

    command.uninstall(name or command.default_name(), user=user, keep_state=keep_state)


@app.command("start", epilog="Example: kolosal service start")
def service_start(name: ServiceName = None, user: OwnService = False) -> None:
    """Start the service, and return when it listens."""
    from kolosal.commands import service as command

    command.control(name or command.default_name(), "start", user=user)


@app.command("stop", epilog="Example: kolosal service stop")
def service_stop(name: ServiceName = None, user: OwnService = False) -> None:
    """Stop the service, and return when it has ended: running answers finish first."""
    from kolosal.commands import service as command

    command.control(name or command.default_name(), "stop", user=user)


@app.command("restart", epilog="Example: kolosal service restart")
def service_restart(name: ServiceName = None, user: OwnService = False) -> None:
    """Stop the service and start it again."""
    from kolosal.commands import service as command

    command.control(name or command.default_name(), "restart", user=user)


@app.command("status", epilog="Example: kolosal service status")
def service_status(name: ServiceName = None, user: OwnService = False) -> None:
    """Show what the system says of the service. Exit status 3 where it does not run."""
    from kolosal.commands import service as command

    raise typer.Exit(command.status(name or command.default_name(), user=user))


@app.command("logs", epilog="Example: kolosal service logs -f")
def service_logs(
    name: ServiceName = None,
    user: OwnService = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and show new lines. Ctrl-C ends it.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, max=10_000, help="How many of the last lines.")
    ] = 100,
) -> None:
    """Show what the daemon of the service logged."""
    from kolosal.commands import service as command

    command.logs(name or command.default_name(), user=user, tail=tail, follow=follow)
