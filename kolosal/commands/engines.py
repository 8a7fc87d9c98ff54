"""What the client commands do: ask the daemon, show the answer.

Owns the words and tables of `load`, `unload`, `ps`, `status`, `config show` and `doctor`. Knows nothing of options and
help texts; `cli` does. Every function returns, or raises CommandError for the one line the user is told.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePath

import typer
from pydantic import JsonValue, SecretStr, TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kolosal.commands.chat import printable
from kolosal.commands.client import ApiError, Body, CommandError, DaemonClient, EngineView
from kolosal.commands.doctor.checks import Check, Verdict, diagnose
from kolosal.commands.doctor.facts import gather
from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration
from kolosal.config.yaml_file import parse_value

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


async def load(client: DaemonClient, engine_id: str, path: str, options: Body) -> None:
    """Add an engine and show how far its loading is."""
    body: Body = {"engine_id": engine_id, "model_path": absolute_path(path), **options}
    with loading_progress(f"Loading {engine_id}") as on_progress:
        answer = await client.add_engine(body, on_progress)
    typer.echo(f"{engine_id}: {answer.get('status', 'added')}")


async def unload(client: DaemonClient, engine_ids: Sequence[str], *, keep: bool = False) -> None:
    """Remove engines, or free their memory only, in order; the first that cannot be ends it."""
    for engine_id in engine_ids:
        try:
            await (client.unload_engine(engine_id) if keep else client.remove_engine(engine_id))
        except ApiError as exc:
            raise CommandError(f"{engine_id}: {exc}") from exc  # which of them it was
        typer.echo(f"{engine_id}: {'unloaded' if keep else 'removed'}")


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
        PurePath((view.model_path or "-").replace("\\", "/")).name,
        _or_dash(view.n_ctx),
        _or_dash(view.in_flight),
        "never" if view.last_accessed is None else ago(now, view.last_accessed),
    )


async def status(client: DaemonClient, engine_id: str | None, *, as_json: bool) -> None:
    """Show the daemon's health, or everything about one engine."""
    body = await (client.health() if engine_id is None else client.engine_facts(engine_id))
    if as_json:
        typer.echo(json.dumps(body, indent=2))
    else:
        show_table([(f"{name}:", _plain(value)) for name, value in _flat(body)])


def config_show(configuration: Configuration, *, as_json: bool) -> None:
    """Show every setting, its value and where that came from."""
    rows = [dataclasses.asdict(row) for row in configuration.rows()]
    if as_json:
        values = TypeAdapter(list[dict[str, object]]).dump_python(rows, mode="json")
        typer.echo(json.dumps(values, indent=2))
        return
    typer.echo(f"File: {configuration.file or 'none'}\n")
    engines = {f"models[{entry.id}]": entry.path for entry in configuration.settings.models}
    table = [(row["key"], _plain(engines.get(row["key"], row["value"])), row["origin"]) for row in rows]
    show_table([("SETTING", "VALUE", "FROM"), *table])


def doctor(config_path: Path | None) -> bool:
    """Check this machine; False when something will not work."""
    checks = diagnose(gather(config_path))
    for check in checks:
        typer.echo(_verdict(check))
    return all(check.outcome is not Verdict.FAIL for check in checks)


def _verdict(check: Check) -> str:
    mark = typer.style(f"{check.outcome:<4}", fg=_COLOURS[check.outcome])
    advice = f"\n      {'':14} -> {check.advice}" if check.advice else ""
    return f"{mark}  {check.name:<14} {check.found}{advice}"


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


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns of plain text, as wide as they must be, so that they can be searched and cut."""
    rows = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(now: datetime, then: datetime) -> str:
    """`3 min ago`. A clock that runs behind the daemon's gives `just now`."""
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = int((now - then).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago" if seconds > 0 else "just now"


def _flat(body: Body, prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in body.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: object) -> str:
    if value is None or value in ([], {}, ()):
        return "-"
    return str(value) if isinstance(value, str | SecretStr) else json.dumps(value)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
