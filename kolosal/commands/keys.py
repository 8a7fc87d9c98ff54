"""`kolosal keys`: make, list and revoke API keys. Works on the file of keys, whether a daemon runs or not."""

# ruff: noqa: PLC0415 - imported when a command runs, as in `cli`
from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kolosal.config.errors import ConfigError
from kolosal.config.load import load_settings, process_environment

if TYPE_CHECKING:
    from kolosal.security.keys import ApiKey, KeyFile

app = typer.Typer(
    help="Make, list and revoke API keys. A running daemon notices at once.", no_args_is_help=True
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file of the daemon.")
]


@app.command(epilog="Example: kolosal keys create laptop --scope inference --scope admin")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called, e.g. for whom it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="inference (default) or admin; can be repeated."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, once: only its digest is kept."""
    from kolosal.security.keys import Scope

    scopes = []
    for text in scope or ():
        if text not in list(Scope):
            raise ConfigError(f"--scope: must be {' or '.join(Scope)}, not {text[:40]!r}")
        scopes.append(Scope(text))
    file = _file(config)
    first = file.signature() is None
    made, key = file.create(name, scopes)
    typer.echo(key)
    typer.echo(f"{name}: {', '.join(sorted(made.scopes))}. Keep the key: it cannot be shown again.", err=True)
    if first:
        typer.echo(f"From now on every request needs a key. The keys are in {file.path}", err=True)


@app.command("list", epilog="Example: kolosal keys list --json")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: ConfigFile = None,
) -> None:
    """List the keys that `kolosal keys create` made, without the keys themselves."""
    keys = _file(config).read()
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in keys], indent=2))
        return
    from kolosal.commands.engines import ago, show_table

    now = datetime.now(UTC)
    rows = [
        (
            key.name,
            key.id,
            " ".join(sorted(key.scopes)),
            "-" if key.created is None else ago(now, key.created),
        )
        for key in keys
    ]
    show_table([("NAME", "ID", "SCOPES", "CREATED"), *rows])


@app.command(epilog="Example: kolosal keys revoke laptop")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name or id.")],
    config: ConfigFile = None,
) -> None:
    """Take a key back: the next request with it is refused."""
    file = _file(config)
    left = file.revoke(name)
    typer.echo(f"{name}: revoked")
    if not left:
        typer.echo(
            f"No key is left in {file.path}, and keys are still needed: delete the file to do without",
            err=True,
        )


def _facts(key: ApiKey) -> dict[str, object]:
    created = None if key.created is None else key.created.isoformat()
    return {"name": key.name, "id": key.id, "scopes": sorted(key.scopes), "created": created}


def _file(config: Path | None) -> KeyFile:
    from kolosal.security.startup_checks import key_file

    file = key_file(load_settings(config_path=config).settings, process_environment())
    if file is None:
        raise ConfigError(
            "auth.keys_file: is needed, because the environment does not tell where your home is"
        )
    return file
