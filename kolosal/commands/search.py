"""`kolosal search`: repositories of Hugging Face's hub with models that can be fetched."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table

from kolosal.commands.errors import CommandError
from kolosal.config.settings import Settings
from kolosal.errors import KolosalError


def search(settings: Settings, words: str, *, limit: int, as_json: bool) -> None:
    """Print what the hub has, what is fetched most first."""
    if settings.downloads.offline:
        raise CommandError("Nothing is asked of the hub: the setting downloads.offline says so")
    from kolosal.downloads.hub import search_hub  # noqa: PLC0415 - slow, and only for this

    try:
        found = search_hub(words, limit)
    except KolosalError as exc:
        raise CommandError(exc.message) from exc
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    if not found:
        typer.echo(f"The hub has no GGUF models for '{words}'")
        return
    table = Table("NAME", "DOWNLOADS", "LIKES", box=None, pad_edge=False)
    for row in found:
        gated = " (gated)" if row.gated else ""
        table.add_row(f"{row.name}{gated}", f"{row.downloads:,}", f"{row.likes:,}")
    Console(soft_wrap=True).print(table)
    typer.echo(f"\nFetch one with `kolosal pull {found[0].name}`, perhaps with :Q4_K_M behind it.")
