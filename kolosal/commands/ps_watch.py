"""`kolosal ps --watch`: the table of engines again at every change, until the daemon ends or the user has seen enough."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kolosal.commands.answers import EngineView
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import CommandError, DaemonUnreachable
from kolosal.commands.ps import engine_rows
from kolosal.commands.text import printable, show_table

REFRESH_S = 2.0
"""How old the table gets while nothing happens: it says how long ago engines were used."""

_VISIBLE = ("hello", "engine.", "request.", "events.")
"""How the kinds of events begin after which the table may look different."""

PAUSE_S = 0.25
"""Between two looks at the daemon, however much happens there."""


async def watch_engines(client: DaemonClient, *, as_json: bool) -> None:
    """The table of engines, again at every change. On a terminal in place; else one after the other.

    Raises:
        CommandError: the daemon has ended, or never answered.
    """
    await client.health()  # or what is wrong with the address
    with suppress(DaemonUnreachable):  # it ended between an event and the look at the engines
        await _show(client, as_json=as_json)
    raise CommandError(f"The daemon at {client.url} has stopped")


async def _show(client: DaemonClient, *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        async for views in _changes(client, refresh_s=None):
            if as_json:
                typer.echo(json.dumps([dataclasses.asdict(view) for view in views], default=str))
            else:
                show_table(engine_rows(views))
                typer.echo()
    else:
        with Live(console=Console(), auto_refresh=False, vertical_overflow="visible") as live:
            async for views in _changes(client, refresh_s=REFRESH_S):
                live.update(_table(engine_rows(views)), refresh=True)


async def _changes(client: DaemonClient, refresh_s: float | None) -> AsyncIterator[list[EngineView]]:
    """All engines: now, after each event, and every `refresh_s` seconds. Ends with the daemon."""
    changed = asyncio.Event()
    following = asyncio.create_task(_follow(client, changed))
    try:
        while True:
            waiting = asyncio.create_task(changed.wait())
            await asyncio.wait((waiting, following), timeout=refresh_s, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            ended = following.done()
            if ended:
                following.result()
            if changed.is_set() or not ended:
                changed.clear()
                yield await client.engines()
            if ended:
                return
            await asyncio.sleep(PAUSE_S)  # what happens in the meantime is shown together
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _follow(client: DaemonClient, changed: asyncio.Event) -> None:
    async with aclosing(client.events()) as events:
        async for kind, _ in events:
            if kind.startswith(_VISIBLE):
                changed.set()


def _table(rows: Sequence[Sequence[str]]) -> Table:
    header, *body = rows
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name)
    for row in body:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
