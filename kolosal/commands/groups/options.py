"""Options that several commands have, and carrying out a command against a daemon."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kolosal.commands.client import DaemonClient

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file; else KOLOSAL_CONFIG, ./config.yaml, or yours.",
        readable=False,  # whoever reads it says what is wrong
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The daemon's address; else the configured host and port."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EngineId = Annotated[str, typer.Argument(metavar="ID", help="The engine's name.")]


def ask(url: str | None, config: Path | None, command: Callable[[DaemonClient], Awaitable[None]]) -> None:
    """Carry a command out against the daemon that is meant."""
    from kolosal.commands.address import configured_address, daemon_configuration, named_address
    from kolosal.commands.client import DaemonClient

    address = named_address(url) if url else configured_address(daemon_configuration(config))

    async def ask() -> None:
        async with DaemonClient(address) as client:
            await command(client)

    asyncio.run(ask())
