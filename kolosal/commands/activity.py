"""`kolosal activity`: the last requests, with `-f` also those that end from now on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime

import typer

from kolosal.commands.answers import Body, items
from kolosal.commands.client import DaemonClient
from kolosal.commands.text import printable, show_table

_HEADER = ("TIME", "DIALECT", "MODEL", "KEY", "IN", "CACHED", "OUT", "FIRST", "TOK/S", "OUTCOME", "ID")

_WIDTHS = (8, 12, 20, 12, 7, 7, 7, 8, 7, 24, 28)
"""Of columns where rows come one after the other; a longer value is shown whole."""


async def show_activity(
    client: DaemonClient, filters: Mapping[str, str], *, tail: int, follow: bool, as_json: bool
) -> None:
    """Print the last requests, the newest last, and with `follow` each that ends."""
    answer = await client.activity(tail, filters)
    rows = items(answer.get("requests"))[::-1]
    if not follow:
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show_table([_HEADER, *map(_cells, rows)])
        return
    if not as_json:
        _print_line(_HEADER)
    for row in rows:
        _print_row(row, as_json=as_json)
    async with aclosing(client.follow_activity(str(answer.get("last_id")), filters)) as coming:
        async for kind, data in coming:
            if kind == "request":
                _print_row(data, as_json=as_json)
            elif kind == "requests.lost":
                typer.echo(f"({data.get('lost') or 'some'} requests were lost)", err=True)


def _print_row(row: Body, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row))
    else:
        _print_line(_cells(row))


def _print_line(cells: tuple[str, ...]) -> None:
    padded = (printable(cell).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    typer.echo("  ".join(padded).rstrip())


def _cells(row: Body) -> tuple[str, ...]:
    time, ttft = row.get("time"), row.get("ttft_ms")
    shown = "-"
    if isinstance(time, int | float):
        shown = datetime.fromtimestamp(time / 1000).astimezone().strftime("%H:%M:%S")
    outcome = str(row.get("outcome"))
    if row.get("error"):
        outcome += f" {row['error']}"
    return (
        shown,
        _word(row.get("dialect")),
        _word(row.get("model")),
        _word(row.get("key")),
        _word(row.get("prompt_tokens")),
        _word(row.get("cached_tokens")),
        _word(row.get("completion_tokens")),
        f"{ttft / 1000:.2f} s" if isinstance(ttft, int | float) else "-",
        _word(row.get("tokens_per_s")),
        outcome,
        _word(row.get("request_id")),
    )


def _word(value: object) -> str:
    return "-" if value in (None, "") else f"{value:.1f}" if isinstance(value, float) else str(value)
