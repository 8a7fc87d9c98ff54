"""`kolosal pull`: fetch a model, by the daemon that runs, or without one. `kolosal run` fetches in the same way."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import typer

from kolosal.commands.answers import Body
from kolosal.commands.client import PROGRESS_INTERVAL_S, DaemonClient
from kolosal.commands.errors import CommandError, DaemonUnreachable
from kolosal.commands.pull_local import LocalPull
from kolosal.commands.pull_view import PullPlan, PullProgress, pull_progress, size
from kolosal.config.load import process_environment
from kolosal.config.settings import Settings
from kolosal.downloads.process import FetcherCommand, fetcher_environment
from kolosal.models.places import model_folders


class Puller(Protocol):
    """Who fetches."""

    async def plan(self, source: str, quant: str | None) -> PullPlan:
        """What would be fetched. Raises CommandError where nothing can be."""

    def fetch(self, plan: PullPlan, *, force: bool) -> AsyncGenerator[PullProgress, None]:
        """Fetch it; the last item is of the whole. Closing the iterator stops that, and keeps what is there."""


class DaemonPull:
    """Fetching by a daemon."""

    def __init__(self, client: DaemonClient) -> None:
        self._client = client

    async def plan(self, source: str, quant: str | None) -> PullPlan:
        """See `Puller`."""
        said = await self._client.plan_download(source, quant)
        numbers = {name: _number(said, name) for name in ("total_bytes", "present_bytes", "free_bytes")}
        return PullPlan(
            str(said.get("source")),
            str(said.get("model_id")),
            local_path=str(said.get("local_path")),
            comfortable=said.get("comfortable") is True,
            loadable=said.get("loadable") is True,
            **numbers,
        )

    async def fetch(self, plan: PullPlan, *, force: bool) -> AsyncGenerator[PullProgress, None]:
        """See `Puller`."""
        view = await self._client.begin_download(plan.source, force=force)
        download_id = str(view.get("model_id"))
        try:
            while view.get("status") in ("downloading", "creating_engine"):
                yield _progress(view)
                await asyncio.sleep(PROGRESS_INTERVAL_S)
                view = await self._client.download(download_id)
        except (asyncio.CancelledError, GeneratorExit):
            await asyncio.shield(self._client.pause_download(download_id))
            raise
        if view.get("status") != "completed":
            reason = view.get("error_message") or f"The download is {view.get('status')}"
            raise CommandError(str(reason))
        yield _progress(view)


def _progress(view: Body) -> PullProgress:
    said = view.get("progress")
    progress = said if isinstance(said, dict) else {}
    model = view.get("model")
    return PullProgress(
        _number(progress, "downloaded_bytes"),
        _number(progress, "total_bytes"),
        _number(progress, "download_speed_bps"),
        model if isinstance(model, str) else None,
    )


def _number(body: Body, name: str) -> int:
    value = body.get(name)
    return int(value) if isinstance(value, int | float) else 0


async def reachable(client: DaemonClient) -> bool:
    """Whether a daemon answers."""
    try:
        await client.health()
    except DaemonUnreachable:
        return False
    return True


def local_puller(settings: Settings) -> LocalPull:
    """Fetching without a daemon, to where one would look."""
    environ = process_environment()
    folder = next(iter(model_folders(settings, environ)), None)
    return LocalPull(settings.downloads, folder, FetcherCommand(fetcher_environment(environ)))


async def pull(
    client: DaemonClient,
    settings: Settings | None,
    source: str,
    quant: str | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Fetch a model and say where it is. Without `settings` only by the daemon of `client`."""
    by_daemon = settings is None or await reachable(client)
    puller: Puller = DaemonPull(client) if by_daemon or settings is None else local_puller(settings)
    plan = await puller.plan(source, quant)
    if not plan.is_here:
        typer.echo(plan.summary, err=True)
    if not plan.loadable and not yes:
        _insist(plan)
    done = await fetched(puller, plan, force=True)
    name = done.model or plan.name
    if as_json:
        body = {"source": plan.source, "model": name, "path": plan.local_path, "bytes": plan.total_bytes}
        typer.echo(json.dumps(body))
    else:
        typer.echo(f"{name} is here ({size(plan.total_bytes)}): talk to it with `kolosal run {name}`")


def _insist(plan: PullPlan) -> None:
    """Ask whether a model is to be fetched that this machine cannot hold."""
    if not sys.stdin.isatty():
        raise CommandError(
            f"{plan.source} has {size(plan.total_bytes)}. {plan.memory_warning}: name a smaller quantisation with --quant,"
            " or fetch it all the same with --yes"
        )
    if not typer.confirm("Fetch it all the same?", default=False, err=True):
        raise typer.Exit(1)


async def fetched(puller: Puller, plan: PullPlan, *, force: bool = False) -> PullProgress:
    """Fetch, and show how far it is. Ctrl-C keeps what is there, and says so."""
    done = PullProgress(0, 0, 0)
    try:
        with pull_progress(Path(plan.name).name) as show:
            async with aclosing(puller.fetch(plan, force=force)) as steps:
                async for done in steps:
                    show(done)
    except asyncio.CancelledError:
        typer.echo(f"\nStopped; what came is kept. `kolosal pull {plan.source}` goes on.", err=True)
        raise
    return done
