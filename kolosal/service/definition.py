"""ServiceDefinition: what is installed, before any system writes it down its own way. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from kolosal.service.errors import ServiceError

DESCRIPTION = "Kolosal: language models on this machine"
MARK = "kolosal service install"
"""Stands in everything that is installed, so that nobody else's service is ever stopped or removed."""
STOP_MARGIN_S = 15.0
"""What a stop may take besides draining."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """One service. All paths are absolute."""

    name: str
    python: str
    """The interpreter that has Kolosal."""
    config: PurePath | None
    """The configuration file that was named."""
    port: int | None
    account: str | None
    """Whose rights it has; None: as few as the system can give."""
    drain_s: float
    """How long running answers may take when it is stopped."""

    @property
    def options(self) -> tuple[str, ...]:
        """Of `kolosal serve`."""
        config = () if self.config is None else ("--config", str(self.config))
        port = () if self.port is None else ("--port", str(self.port))
        return (*config, *port)

    @property
    def argv(self) -> tuple[str, ...]:
        """The program. `-P`: the folder it starts in is searched for no modules."""
        return (self.python, "-P", "-m", "kolosal", "serve", *self.options)

    @property
    def stop_s(self) -> int:
        """After this it is ended however far it is."""
        return round(self.drain_s + STOP_MARGIN_S)


@dataclass(frozen=True, slots=True)
class ServicePlace:
    """Where a service's things are, for people to read."""

    definition: str
    config: str
    state: str
    logs: str


class ServiceManager(Protocol):
    """One system's manager of services. Every method raises ServiceError."""

    def check_rights(self, command: Sequence[str]) -> None:
        """Whether this user may install and remove; `command` is what to run again with more rights."""

    def folder_of(self, name: str) -> PurePath | None:
        """Where its `config.yaml` is where none was named; None: as every `kolosal serve` finds it."""

    def install(self, definition: ServiceDefinition) -> ServicePlace:
        """Register it, to be started with the system. What fails leaves nothing."""

    def uninstall(self, name: str, *, keep_state: bool) -> None:
        """Stop it and remove it, with all that it wrote unless that is to be kept."""

    def start(self, name: str) -> None:
        """Start it and return when it listens."""

    def stop(self, name: str) -> None:
        """Stop it and return when it has ended; running answers finish first."""

    def status(self, name: str) -> int:
        """Print what the system says of it; 0 where it runs, 3 where it does not."""

    def logs(self, name: str, *, tail: int, follow: bool) -> None:
        """Print its last lines, and with `follow` those that come."""


def checked_name(name: str) -> str:
    """The name, if every system can have a service of that name."""
    if not _NAME.fullmatch(name):
        raise ServiceError(
            f"The name {name[:80]!r} must be 1 to 63 of the characters A-Z a-z 0-9 _ -, and begin with a letter or digit"
        )
    return name


def name_in_use(name: str) -> ServiceError:
    """There is one of that name, whoever made it."""
    return ServiceError(
        f"There is a service '{name}' already: remove it with `kolosal service uninstall --name {name}`,"
        " or choose another name with --name"
    )


def not_installed(name: str) -> ServiceError:
    """There is none of that name."""
    return ServiceError(
        f"There is no service '{name}' of Kolosal's: install it with `kolosal service install --name {name}`"
    )


def not_ours(name: str) -> ServiceError:
    """There is one, and Kolosal did not install it."""
    return ServiceError(
        f"The service '{name}' was not installed by `{MARK}`: name one that was, with --name NAME"
    )
