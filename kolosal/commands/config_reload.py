"""`kolosal config reload`: the running daemon's configuration, read again."""

from __future__ import annotations

import typer

from kolosal.commands.client import DaemonClient
from kolosal.commands.text import printable

_TOLD = {"applied": "holds now", "needs_restart": "needs a restart", "failed": "failed"}


async def config_reload(client: DaemonClient) -> None:
    """Print what became of each setting that is other."""
    answer = await client.reload()
    lines = [
        printable(f"{told}: {item}")
        for name, told in _TOLD.items()
        if isinstance(items := answer.get(name), list)
        for item in items
    ]
    typer.echo("\n".join(lines) or "Nothing has changed")
