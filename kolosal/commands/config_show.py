"""`kolosal config show`: every setting, its value, and where that came from."""

from __future__ import annotations

import dataclasses
import json

import typer
from pydantic import SecretStr, TypeAdapter

from kolosal.commands.text import show_table
from kolosal.config.load import Configuration


def config_show(configuration: Configuration, *, as_json: bool) -> None:
    """Print the settings in the order of the documentation; of an engine the table shows the path only."""
    rows = configuration.rows()
    if as_json:
        found = [dataclasses.asdict(row) for row in rows]
        typer.echo(json.dumps(TypeAdapter(list[dict[str, object]]).dump_python(found, mode="json"), indent=2))
        return
    typer.echo(f"File: {configuration.file or 'none'}\n")
    paths = {f"models[{entry.id}]": entry.path for entry in configuration.settings.models}
    table = [(row.key, _plain(paths.get(row.key, row.value)), row.origin) for row in rows]
    show_table([("SETTING", "VALUE", "FROM"), *table])


def _plain(value: object) -> str:
    if value is None or value == ():
        return "-"
    return str(value) if isinstance(value, str | SecretStr) else json.dumps(value)
