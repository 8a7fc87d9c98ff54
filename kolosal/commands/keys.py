"""`kolosal keys`: make, list and revoke API keys. Works on the file of keys, whether a daemon runs or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import typer

from kolosal.commands.text import ago, show_table
from kolosal.config.errors import ConfigError
from kolosal.config.load import load_settings, process_environment
from kolosal.security.keys import ApiKey, KeyFile, KeyLimits, Scope
from kolosal.security.startup_checks import key_file


def create_key(
    config: Path | None, name: str, scopes: Sequence[str], limits: Mapping[str, int | None]
) -> None:
    """Make a key and print it alone on stdout, once: only its digest is kept."""
    for text in scopes:
        if text not in list(Scope):
            raise ConfigError(f"--scope: must be {' or '.join(Scope)}, not {text[:40]!r}")
    file = _file(config)
    first = file.signature() is None
    own = KeyLimits(**limits) if any(value is not None for value in limits.values()) else None
    made, key = file.create(name, map(Scope, scopes), own)
    typer.echo(key)
    typer.echo(f"{name}: {', '.join(sorted(made.scopes))}. Keep the key: it cannot be shown again.", err=True)
    if first:
        typer.echo(f"From now on every request needs a key. The keys are in {file.path}", err=True)


def list_keys(config: Path | None, *, as_json: bool) -> None:
    """Print all keys of the file but for the keys themselves."""
    keys = _file(config).read()
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in keys], indent=2))
        return
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


def revoke_key(config: Path | None, name: str) -> None:
    """Remove the key of that name or id: the next request with it is refused."""
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
    limits = None if key.limits is None else asdict(key.limits)
    return {
        "name": key.name, "id": key.id, "scopes": sorted(key.scopes), "created": created, "limits": limits,
    }  # fmt: skip


def _file(config: Path | None) -> KeyFile:
    file = key_file(load_settings(config_path=config).settings, process_environment())
    if file is None:
        raise ConfigError(
            "auth.keys_file: is needed, because the environment does not tell where your home is"
        )
    return file
