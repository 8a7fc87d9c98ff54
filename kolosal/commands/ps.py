"""`kolosal ps`: the engines of a daemon as a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePath

import typer

from kolosal.commands.answers import EngineView
from kolosal.commands.client import DaemonClient
from kolosal.commands.text import ago, show_table


async def ps(client: DaemonClient, *, as_json: bool) -> None:
    """List all engines."""
    views = await client.engines()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(view) for view in views], default=str, indent=2))
        return
    show_table(engine_rows(views))
    if not views:
        typer.echo("No engine yet: add one with `kolosal load ID PATH`", err=True)


def engine_rows(views: Sequence[EngineView]) -> list[tuple[str, ...]]:
    """The table of engines, its header first."""
    now = datetime.now(UTC)
    return [("ID", "STATE", "MODEL", "N_CTX", "IN FLIGHT", "LAST USED"), *(_row(view, now) for view in views)]


def _row(view: EngineView, now: datetime) -> tuple[str, ...]:
    loading = view.state == "loading" and view.load_progress is not None
    return (
        view.engine_id,
        f"loading {view.load_progress:.0%}" if loading else view.state,
        PurePath((view.model_path or view.backend or "-").replace("\\", "/")).name,
        _or_dash(view.n_ctx),
        _or_dash(view.in_flight),
        "never" if view.last_accessed is None else ago(now, view.last_accessed),
    )


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
