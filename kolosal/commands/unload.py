"""`kolosal unload`: remove engines, or free their memory only."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import ApiError, CommandError


async def unload(client: DaemonClient, engine_ids: Sequence[str], *, keep: bool = False) -> None:
    """Remove engines in order, or with `keep` unload their models; the first that cannot be ends it."""
    for engine_id in engine_ids:
        try:
            await (client.unload_engine(engine_id) if keep else client.remove_engine(engine_id))
        except ApiError as exc:
            raise CommandError(f"{engine_id}: {exc}") from exc
        typer.echo(f"{engine_id}: {'unloaded' if keep else 'removed'}")
