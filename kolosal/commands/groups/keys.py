"""`kolosal keys`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kolosal.commands.groups.options import Json

app = typer.Typer(
    help="Make, list and revoke API keys. A running daemon notices at once.", no_args_is_help=True
)

KeysConfig = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file of the daemon.")
]


Quota = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=10**12,
        help="What the key may use; 0 no limit. Else as the configuration says.",
    ),
]


@app.command("create", epilog="Example: kolosal keys create laptop --scope inference --scope admin")
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called, e.g. for whom it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="inference (default) or admin; can be repeated."),
    ] = None,
    requests_per_minute: Quota = None,
    requests_per_day: Quota = None,
    tokens_per_minute: Quota = None,
    tokens_per_day: Quota = None,
    config: KeysConfig = None,
) -> None:
    """Make a key and print it, once: only its digest is kept."""
    from kolosal.commands.keys import create_key

    limits = {
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
    }
    create_key(config, name, scope or (), limits)


@app.command("list", epilog="Example: kolosal keys list --json")
def keys_list(as_json: Json = False, config: KeysConfig = None) -> None:
    """List the keys that `kolosal keys create` made, without the keys themselves."""
    from kolosal.commands.keys import list_keys

    list_keys(config, as_json=as_json)


@app.command("revoke", epilog="Example: kolosal keys revoke laptop")
def keys_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name or id.")],
    config: KeysConfig = None,
) -> None:
    """Take a key back: the next request with it is refused."""
    from kolosal.commands.keys import revoke_key

    revoke_key(config, name)
