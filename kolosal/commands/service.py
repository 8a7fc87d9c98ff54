"""`kolosal service`: the daemon as a service of the system, by the same words on each.

Owns what is checked before anything is installed: rights, the name, the configuration, the address. What a system does is its manager's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from kolosal.commands.errors import CommandError
from kolosal.config.load import load_settings, process_environment
from kolosal.config.server import ServerSettings
from kolosal.config.settings import Settings
from kolosal.config.yaml_file import exists
from kolosal.http.server import listen
from kolosal.service.definition import ServiceDefinition, ServiceManager, checked_name
from kolosal.service.errors import ServiceError


def default_name(platform: str = sys.platform) -> str:
    """As services are called on each system."""
    return "Kolosal" if platform == "win32" else "kolosal"


def install(name: str, *, config: Path | None, port: int | None, user: bool, account: str | None) -> None:
    """Check everything, then install; what to do next is printed."""
    with _for_the_user():
        manager = manager_of(user=user)
        manager.check_rights(_again())
        if user and account is not None:
            raise ServiceError(
                "--account: a service of your own (--user) runs as you: leave one of the two out"
            )
        folder = manager.folder_of(checked_name(name))
        settings = _settings(config, port, None if folder is None else Path(folder, "config.yaml"))
        _check_address(settings.server)
        file = None if config is None else config.expanduser().absolute()
        drain_s = settings.server.shutdown_drain_s
        place = manager.install(ServiceDefinition(name, sys.executable, file, port, account, drain_s))
    scope = " --user" if user else ""
    named = "" if name.casefold() == "kolosal" else f" --name {name}"
    typer.echo(
        f"The service '{name}' is installed, and starts with {'your login' if user else 'the system'}.\n"
    )
    typer.echo(f"  definition     {place.definition}")
    typer.echo(f"  configuration  {file or place.config}")
    typer.echo(f"  state          {place.state}")
    typer.echo(f"  logs           {place.logs}")
    typer.echo(f"  address        {settings.server.url}\n")
    typer.echo(f"Start it now with: kolosal service start{scope}{named}")


def uninstall(name: str, *, user: bool, keep_state: bool) -> None:
    """Stop and remove."""
    with _for_the_user():
        manager = manager_of(user=user)
        manager.check_rights(_again())
        manager.uninstall(checked_name(name), keep_state=keep_state)
    typer.echo(f"The service '{name}' is removed.")


def control(name: str, verb: str, *, user: bool) -> None:
    """Start, stop or restart, and return when that is done."""
    with _for_the_user():
        manager = manager_of(user=user)
        manager.check_rights(_again())
        checked_name(name)
        if verb in ("stop", "restart"):
            manager.stop(name)
        if verb in ("start", "restart"):
            manager.start(name)
    typer.echo(f"The service '{name}' {'has stopped' if verb == 'stop' else 'is running'}.")


def status(name: str, *, user: bool) -> int:
    """What the system says."""
    with _for_the_user():
        return manager_of(user=user).status(checked_name(name))


def logs(name: str, *, user: bool, tail: int, follow: bool) -> None:
    """What the daemon logged."""
    with _for_the_user():
        manager_of(user=user).logs(checked_name(name), tail=tail, follow=follow)


def manager_of(*, user: bool) -> ServiceManager:
    """This system's."""
    if sys.platform == "win32":
        from kolosal.service.windows import WindowsServices  # noqa: PLC0415 - Windows only

        if user:
            raise ServiceError(
                "Windows has services of the system only: leave --user out, or have `kolosal serve` started when you log in, by"
                " the task that docs/operations.md shows"
            )
        return WindowsServices()
    if sys.platform == "darwin":
        from kolosal.service.launchd import Launchd  # noqa: PLC0415

        return Launchd(user=user)
    from kolosal.service.systemd import Systemd  # noqa: PLC0415

    return Systemd(user=user)


@contextmanager
def _for_the_user() -> Iterator[None]:
    try:
        yield
    except ServiceError as exc:
        raise CommandError(str(exc)) from exc


def _again() -> list[str]:
    """This command, to be run again with more rights. Installed commands are not on root's path."""
    program = Path(sys.argv[0])
    if program.stem == "__main__":
        return [sys.executable, "-m", "kolosal", *sys.argv[1:]]
    return [str(program.absolute()), *sys.argv[1:]]


def _settings(config: Path | None, port: int | None, expected: Path | None) -> Settings:
    """What the service will be set to; variables of this terminal do not count, because it will not have them.

    Raises:
        ConfigError: the file cannot be used.
    """
    file = config if config is not None or expected is None or not exists(expected) else expected
    if file is None and expected is not None:
        return Settings() if port is None else Settings(server=ServerSettings(port=port))
    return load_settings({"port": port}, config_path=file, environ=_home_only()).settings


def _home_only() -> dict[str, str]:
    environ = process_environment()
    return {name: environ[name] for name in ("HOME", "APPDATA", "XDG_CONFIG_HOME") if name in environ}


def _check_address(server: ServerSettings) -> None:
    """Nobody else has it."""
    try:
        listen(server.host, server.port).close()
    except OSError as exc:
        url = server.url_of(server.host, server.port)
        raise ServiceError(
            f"Cannot listen on {url} ({exc.strerror or exc}): stop what has it (`kolosal status` tells whether that is a"
            f" daemon), or choose another with --port {server.port % 65535 + 1}"
        ) from exc
