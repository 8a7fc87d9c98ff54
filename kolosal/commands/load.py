"""`kolosal load`: add an engine, and show how far its loading is. `kolosal run` loads files the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kolosal.commands.answers import Body
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import CommandError
from kolosal.config.errors import ConfigError
from kolosal.config.yaml_file import parse_value


async def load(client: DaemonClient, engine_id: str, path: str, options: Body) -> None:
    """Add an engine and show how far its loading is."""
    body: Body = {"engine_id": engine_id, "model_path": absolute_path(path), **options}
    with loading_progress(f"Loading {engine_id}") as on_progress:
        answer = await client.add_engine(body, on_progress)
    typer.echo(f"{engine_id}: {answer.get('status', 'added')}")


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


def parameters(pairs: Sequence[str]) -> Body:
    """Loading parameters given as KEY=VALUE; a value is written as in the configuration file."""
    return dict(_pair(text) for text in pairs)


def _pair(text: str) -> tuple[str, JsonValue]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set: must be KEY=VALUE, not '{text}'")
    return key, parse_value(value, f"--set {key}")
