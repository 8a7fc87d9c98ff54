"""`kolosal cluster`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from typing import Annotated

import typer

from kolosal.commands.groups.options import ConfigFile, Json, Url, ask

app = typer.Typer(help="Look at the cluster of a running daemon, and empty its nodes.", no_args_is_help=True)


@app.command("status", epilog="Example: kolosal cluster status")
def cluster_status(as_json: Json = False, url: Url = None, config: ConfigFile = None) -> None:
    """Show the cluster's nodes, what is free on each, and where the replicas of engines are."""
    from kolosal.commands import cluster as command

    ask(url, config, lambda client: command.cluster_status(client, as_json=as_json))


@app.command("drain", epilog="Example: kolosal cluster drain 10.0.0.2")
def cluster_drain(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="Its address or id, as `kolosal cluster status` shows it.")
    ],
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Have no replicas on a node, so that it can be taken away: others start elsewhere, running answers finish."""
    from kolosal.commands import cluster as command

    ask(url, config, lambda client: command.cluster_drain(client, node))
