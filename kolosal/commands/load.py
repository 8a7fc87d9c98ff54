"""`kolosal load`: add an engine, and show how far its loading is. `kolosal run` loads files the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kolosal.commands.answers import Body
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import ApiError, CommandError
from kolosal.config.errors import ConfigError
from kolosal.config.yaml_file import parse_value


async def load(client: DaemonClient, engine_id: str, path: str, options: Body) -> None:
    """Add an engine and show how far its loading is. A name that is taken is refused before a model file is looked at."""
    body: Body = {"engine_id": engine_id, **({"model_path": absolute_path(path)} if path else {}), **options}
    await _expect_free(client, engine_id)
    with loading_progress(f"Loading {engine_id}") as on_progress:
        answer = await client.add_engine(body, on_progress)
    typer.echo(f"{engine_id}: {answer.get('status', 'added')}")


async def _expect_free(client: DaemonClient, engine_id: str) -> None:
    try:
        await client.engine(engine_id)
    except ApiError as exc:
        if exc.status == HTTPStatus.NOT_FOUND:
            return
        raise
    raise CommandError(
        f"There is an engine '{engine_id}' already: choose another name, or remove it with `kolosal unload {engine_id}`"
    )


@contextmanager
def loading_progress(what: str) -> Iterator[Callable[[float], None]]:
    """A spinner with the time that has passed, and a bar once there is progress; plain lines where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield plain_progress(what)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what.replace("[", r"\["), total=None)
        yield lambda fraction: progress.update(task, total=1.0, completed=fraction) if fraction > 0 else None


def plain_progress(what: str) -> Callable[[float], None]:
    """A line for each quarter that was reached, for logs and pipes."""
    reached = 0

    def on_progress(fraction: float) -> None:
        nonlocal reached
        quarter = int(fraction * 4)
        if quarter > reached:
            reached = quarter
            typer.echo(f"{what}: {25 * quarter} %", err=True)

    return on_progress


def absolute_path(path: str) -> str:
    """The daemon runs in a folder of its own, so it is told where the path starts."""
    if "://" in path:
        raise CommandError(f"'{path}' is no file: download the model first")
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as exc:  # ~someone who does not exist
        raise CommandError(f"'{path}': {exc}") from exc


def parameters(pairs: Sequence[str], flag: str = "--set") -> Body:
    """Parameters given as KEY=VALUE; a value is written as in the configuration file."""
    return dict(_pair(text, flag) for text in pairs)


def replicas(text: str) -> JsonValue:
    """A number, or the least and the most, as `1-4`."""
    least, dash, most = text.partition("-")
    if not least.isdecimal() or (dash and not most.isdecimal()):
        raise ConfigError(f"--replicas: must be a number, or two as 1-4, not '{text}'")
    return {"min": int(least), "max": int(most)} if dash else int(least)


def _pair(text: str, flag: str) -> tuple[str, JsonValue]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{flag}: must be KEY=VALUE, not '{text}'")
    return key, parse_value(value, f"{flag} {key}")
