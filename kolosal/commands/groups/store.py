"""`kolosal store`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kolosal.commands.groups.options import ConfigFile

app = typer.Typer(
    help="Copy and check what clients have kept: assistants, threads and runs.", no_args_is_help=True
)


@app.command("backup", epilog="Example: kolosal store backup kolosal-backup.db")
def store_backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy is written.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    config: ConfigFile = None,
) -> None:
    """Copy the store to a file, as it is at one moment. A daemon that works with it goes on meanwhile."""
    from kolosal.commands.store import back_up_store

    back_up_store(config, target, force=force)


@app.command("check", epilog="Example: kolosal store check")
def store_check(config: ConfigFile = None) -> None:
    """Look whether the store is whole: its pages, what its rows refer to, and what is counted for each key."""
    from kolosal.commands.store import check_store

    check_store(config)
