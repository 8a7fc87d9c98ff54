"""`kolosal logs`: what an engine's worker wrote to its standard error, with `-f` also what is still to come."""

from __future__ import annotations

from contextlib import aclosing

import typer

from kolosal.commands.client import DaemonClient
from kolosal.commands.text import printable


async def show_logs(client: DaemonClient, engine_id: str, *, tail: int, follow: bool) -> None:
    """The last lines of an engine's worker, and with `follow` all that come."""
    if not follow:
        for line in await client.logs(engine_id, tail):
            typer.echo(printable(line))
        return
    async with aclosing(client.follow_logs(engine_id, tail)) as lines:
        async for line in lines:
            typer.echo(printable(line))
