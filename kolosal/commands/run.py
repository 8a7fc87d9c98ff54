"""`kolosal run`: find or start a daemon, find or load the model, then talk.

Owns the order of these steps and their undoing. The conversation itself is `chat`'s, the started daemon
`child_daemon`'s.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import typer

from kolosal.commands.address import Address
from kolosal.commands.answers import Body
from kolosal.commands.chat import Chat, Terminal, converse
from kolosal.commands.child_daemon import ChildDaemon, ChildSpec, child_daemon
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import ApiError, CommandError, DaemonUnreachable
from kolosal.commands.load import absolute_path, loading_progress
from kolosal.commands.pull import DaemonPull, fetched
from kolosal.commands.pull_view import PullPlan
from kolosal.downloads.source import is_source


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for."""

    model: str
    """An engine's id, the path of a `.gguf` file, or the name of a model to fetch."""
    prompt: str | None
    """One question; None: a conversation."""
    system: str | None
    options: Body
    """Sampling parameters, as the chat API names them."""
    fetch_unasked: bool = False
    """Fetch a model that is not here without a question."""


def run(request: RunRequest, address: Address, start: ChildSpec | None, terminal: Terminal) -> None:
    """Talk. `start` is how to start a daemon where none answers; None: do not."""
    if request.prompt is not None and not request.prompt.strip():
        raise CommandError("There is nothing to ask: the prompt is empty")
    with asyncio.Runner() as runner, ExitStack() as stack:
        client = DaemonClient(address)
        child: ChildDaemon | None = None
        try:
            child = _reach_daemon(client, runner, stack, start)
            _talk(request, client, runner, terminal)
        except KeyboardInterrupt:
            terminal.write("\n")
            raise
        except CommandError as exc:
            if child is not None and not isinstance(exc, ApiError) and child.is_dying():
                raise child.failure("ended before it was told to") from None
            raise
        finally:
            runner.run(client.aclose())


def _talk(request: RunRequest, client: DaemonClient, runner: asyncio.Runner, terminal: Terminal) -> None:
    engine_id = runner.run(find_or_load(client, request.model, fetch_unasked=request.fetch_unasked))
    chat = Chat(client, engine_id, request.system, request.options)
    if request.prompt is None:
        converse(chat, terminal, runner.run)
    else:
        runner.run(chat.answer(request.prompt, terminal.write))
        terminal.write("\n")


def _reach_daemon(
    client: DaemonClient, runner: asyncio.Runner, stack: ExitStack, start: ChildSpec | None
) -> ChildDaemon | None:
    """The daemon that was started for this, if one was."""
    try:
        runner.run(client.health())
    except DaemonUnreachable:
        if start is None:
            raise
    else:
        return None
    child = stack.enter_context(child_daemon(start))
    runner.run(child.wait_until_ready(client))
    return child


async def find_or_load(client: DaemonClient, model: str, *, fetch_unasked: bool = False) -> str:
    """The id of the engine that `model` means; a file that is not loaded yet is loaded under its stem, a model that is
    somewhere else is fetched first, and loaded under the name that it has here."""
    if is_source(model):
        return await _fetch_and_load(client, model, fetch_unasked=fetch_unasked)
    if not model.lower().endswith(".gguf"):
        await _expect_engine(client, model)
        return model
    path = absolute_path(model)
    engine_id = re.sub(r"[\\/?#]", "-", Path(path).stem)
    try:
        loaded = (await client.engine(engine_id)).model_path
    except ApiError as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        with loading_progress(f"Loading {engine_id}") as on_progress:
            await client.add_engine({"engine_id": engine_id, "model_path": path}, on_progress)
        return engine_id
    if loaded is not None and not _same_file(loaded, path):
        raise CommandError(
            f"The engine '{engine_id}' holds another file, {loaded}: talk to it with `kolosal run {engine_id}`,"
            f" or load this one under another id with `kolosal load ID {model}`"
        )
    return engine_id


async def _fetch_and_load(client: DaemonClient, model: str, *, fetch_unasked: bool) -> str:
    if await client.knows_model(model):
        return model  # on the disk: the hub need not be there
    puller = DaemonPull(client)
    plan = await puller.plan(model, None)
    if not plan.is_here and not fetch_unasked:
        _ask_to_fetch(plan)
    done = await fetched(puller, plan, force=True)
    engine_id = done.model or plan.name
    try:
        await client.engine(engine_id)
    except ApiError as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        with loading_progress(f"Loading {engine_id}") as on_progress:
            await client.add_engine({"engine_id": engine_id, "model_path": plan.local_path}, on_progress)
    return engine_id


def _ask_to_fetch(plan: PullPlan) -> None:
    typer.echo(plan.summary, err=True)
    if not sys.stdin.isatty():
        raise CommandError(
            f"{plan.source} is not here: fetch it with `kolosal pull {plan.source}`, or say --yes"
        )
    if not typer.confirm("Fetch it?", default=plan.loadable, err=True):
        raise typer.Exit(1)


async def _expect_engine(client: DaemonClient, engine_id: str) -> None:
    try:
        await client.engine(engine_id)
    except ApiError as exc:
        if exc.status == HTTPStatus.FORBIDDEN:
            return  # a key that may use engines but not look at them: the first question will tell
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        if await client.knows_model(engine_id):
            return  # of the library: the first question makes it an engine
        known = ", ".join(view.engine_id for view in await client.engines()) or "none"
        raise CommandError(
            f"There is no engine '{engine_id}' (there is: {known}). Give the path of a .gguf file to load it"
        ) from exc


def _same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()
