"""`kolosal store`: copies and checks of what clients have kept, whether a daemon runs or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer

from kolosal.commands.errors import CommandError
from kolosal.config.load import load_settings, process_environment, state_folder
from kolosal.errors import StoreUnavailable
from kolosal.store.maintenance import back_up, check, sqlite_path
from kolosal.store.store import database_url

T = TypeVar("T")


def back_up_store(config: Path | None, target: Path, *, force: bool) -> None:
    """Copy the database to a file."""
    source = _database(config, "pg_dump")
    if target.exists() and not force:
        raise CommandError(f"{target} is there already: name another file, or add --force")
    n_bytes = _tried(lambda: back_up(source, target))
    typer.echo(f"{target}: {n_bytes / 1024**2:.1f} MiB, checked")


def check_store(config: Path | None) -> None:
    """Say what is wrong with the database, if anything is."""
    source = _database(config, "amcheck")
    findings = _tried(lambda: check(source))
    for finding in findings:
        typer.echo(f"{source}: {finding}", err=True)
    if findings:
        raise CommandError(
            "The store is damaged: stop the daemon and put a copy of `kolosal store backup` there"
        )
    typer.echo(f"{source}: all is well")


def _database(config: Path | None, tool: str) -> Path:
    settings, environ = load_settings(config_path=config).settings, process_environment()
    try:
        path = sqlite_path(database_url(settings.store, state_folder(settings, environ)))
    except StoreUnavailable as exc:
        raise CommandError(exc.message) from exc
    if path is None:
        raise CommandError(f"store.url names a PostgreSQL, which has tools of its own for this: {tool}")
    return path


def _tried(work: Callable[[], T]) -> T:
    try:
        return work()
    except (OSError, sqlite3.Error) as exc:
        raise CommandError(f"It cannot be done: {exc}") from exc
