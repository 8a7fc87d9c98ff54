"""`kolosal status`: how the daemon is, or all about one engine, one fact a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import typer
from pydantic import JsonValue

from kolosal.commands.answers import Body, items
from kolosal.commands.client import DaemonClient
from kolosal.commands.text import ago, duration, show_table, size


async def status(client: DaemonClient, engine_id: str | None, *, as_json: bool) -> None:
    """Show the daemon's health, or everything about one engine; as JSON it is what the daemon answers."""
    body = await (client.health() if engine_id is None else client.engine_facts(engine_id))
    if as_json:
        typer.echo(json.dumps(body, indent=2))
    elif engine_id is None:
        _show_daemon(client.url, body)
    else:
        _show_engine(body)


def _show_daemon(url: str, body: Body) -> None:
    server, counts = _section(body, "server"), _section(body, "node_manager")
    problems = body.get("problems")
    show_table(
        [
            ("status:", _human("status", body.get("status"))),
            ("address:", url),
            ("version:", _human("version", server.get("version"))),
            *([("update:", f"version {server['update']} is there")] if server.get("update") else []),
            ("uptime:", _human("uptime_s", server.get("uptime"))),
            ("engines:", f"{counts.get('total_engines', '?')}, {counts.get('loaded_engines', '?')} loaded"),
            *(("problem:", str(problem)) for problem in (problems if isinstance(problems, list) else ())),
        ]
    )
    if engines := items(body.get("engines")):
        typer.echo()
        show_table(
            [
                ("ENGINE", "STATUS"),
                *((str(each.get("engine_id")), str(each.get("status"))) for each in engines),
            ]
        )


def _show_engine(body: Body) -> None:
    """What belongs to the engine itself, then what is told in sections. What is not there is left out."""
    show_table([*_facts({name: value for name, value in body.items() if not isinstance(value, dict)})])
    for title in body:
        if facts := [*_facts(_section(body, title), title)]:
            typer.echo(f"\n{title}")
            show_table([(f"  {name}", value) for name, value in facts])


def _facts(section: Body, title: str = "") -> Iterator[tuple[str, str]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from ((f"{name} {inner}", text) for inner, text in _facts(value, title))
        elif name == "last_accessed":
            yield name, _human(name, value or "never")
        elif value not in (None, [], ""):
            unit = "_bytes" if title == "memory" else ""
            yield name.removesuffix("_s").removesuffix("_bytes"), _human(name + unit, value)


def _human(name: str, value: JsonValue) -> str:
    """A value as people read it. What it measures follows from the end of its name."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_bytes"):
            return size(value)
        case int() | float() if name.endswith("_s"):
            return duration(value)
        case int() if name == "n_params":
            return f"{value:,}"
        case float() if name == "load_progress":
            return f"{value:.0%}"
        case list():
            return ", ".join(map(str, value))
        case str() if name == "last_accessed":
            return _since(value)
        case _:
            return "-" if value is None else str(value)


def _since(time: str) -> str:
    try:
        return ago(datetime.now(UTC), datetime.fromisoformat(time))
    except ValueError:
        return time


def _section(body: Body, name: str) -> Body:
    found = body.get(name)
    return found if isinstance(found, dict) else {}
