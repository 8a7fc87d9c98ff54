"""`kolosal list`, `kolosal show` and `kolosal rm`: the models on the disks of the daemon's machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

import typer
from pydantic import JsonValue

from kolosal.commands.answers import Body, items
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import ApiError, CommandError
from kolosal.commands.held_settings import held_settings
from kolosal.commands.text import ago, show_table, size
from kolosal.models.names import parameter_size

_SOURCES = {"folder": "folder", "huggingface": "Hugging Face", "ollama": "Ollama", "lm_studio": "LM Studio"}

_HIDDEN = frozenset({"files", "projector"})
"""Facts that `show` has lines of its own for."""


async def list_models(client: DaemonClient, words: Sequence[str], *, as_json: bool) -> None:
    """List the models whose names have all of these words."""
    library = await client.library()
    models = [each for each in items(library.get("models")) if _has(str(each.get("name")), words)]
    if as_json:
        typer.echo(json.dumps(models, indent=2))
        return
    now = datetime.now(UTC)
    header = ("NAME", "SIZE", "WEIGHTS", "QUANT", "CONTEXT", "FROM", "STATUS", "LAST USED")
    show_table([header, *(_row(each, now) for each in models)])
    for each in models:
        if each.get("error"):
            typer.echo(f"{each['name']}: {each['error']}", err=True)
    folders = [each for each in items(library.get("folders")) if each.get("problem")]
    for each in folders:
        typer.echo(f"{each['path']}: {each['problem']}", err=True)
    if not models:
        first = next((each for each in items(library.get("folders")) if each.get("source") == "folder"), None)
        where = "" if first is None else f": put a .gguf file into {first['path']}"
        typer.echo(f"No model{' of that name' if words else ''} yet{where}", err=True)


async def show_model(client: DaemonClient, name: str, *, as_json: bool) -> None:
    """Show what is known of a model, and what is said of it in `models.yaml`; of an engine without one in the library, the engine."""
    try:
        model = await client.library_model(name)
    except ApiError as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        model = await _engine_instead(client, name, exc)
    settings = await _settings(client, name)
    if as_json:
        typer.echo(json.dumps({**model, "settings": settings}, indent=2))
        return
    files = [*items(model.get("files"))]
    projector = model.get("projector")
    files += [projector] if isinstance(projector, dict) else []
    facts = [
        (key, _fact(key, value))
        for key, value in model.items()
        if key not in _HIDDEN and value not in (None, [])
    ]
    facts += [("file", f"{each.get('path')} ({_fact('size', each.get('size'))})") for each in files]
    show_table([(f"{key}:", value) for key, value in facts])
    if settings:
        typer.echo("\n" + "\n".join(held_settings({"holds": [*settings]})))


async def remove_models(client: DaemonClient, names: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Remove models with their files, after asking; the first that cannot be ends it."""
    answers = list[Body]()
    for name in names:
        model = await client.library_model(name)
        what = f"{model.get('name')} ({_fact('size', model.get('size'))}, {_from(model)})"
        if not yes:
            if not sys.stdin.isatty():
                raise CommandError(f"Removing {what} needs --yes where nobody can be asked")
            if not typer.confirm(f"Remove {what} from the disk?"):
                raise CommandError(f"{model.get('name')}: not removed")
        removed = await client.remove_library_model(str(model.get("name")))
        answers.append(removed)
        if not as_json:
            typer.echo(
                f"{model.get('name')}: removed, {_fact('freed_bytes', removed.get('freed_bytes'))} freed"
            )
    if as_json:
        typer.echo(json.dumps(answers, indent=2))


def _has(name: str, words: Sequence[str]) -> bool:
    return all(word.casefold() in name.casefold() for word in words)


def _row(model: Body, now: datetime) -> tuple[str, ...]:
    used = model.get("last_used_at")
    return (
        str(model.get("name")),
        _fact("size", model.get("size")),
        _fact("parameters", model.get("parameters")),
        _fact("", model.get("quantization")),
        _fact("", model.get("n_ctx_train")),
        _from(model),
        "damaged" if model.get("error") else _fact("", model.get("status")),
        "never" if not isinstance(used, str) else ago(now, datetime.fromisoformat(used)),
    )


def _from(model: Body) -> str:
    source = str(model.get("source"))
    return _SOURCES.get(source, source)


def _fact(key: str, value: JsonValue) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, int) and key in ("size", "freed_bytes"):
        return size(value)
    if isinstance(value, int) and key == "parameters":
        return parameter_size(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


async def _engine_instead(client: DaemonClient, name: str, error: ApiError) -> Body:
    """An engine whose file is not in the library."""
    try:
        facts = await client.engine_facts(name)
    except ApiError:
        raise error from None
    return {key: value for key, value in facts.items() if not isinstance(value, dict) and value is not None}


async def _settings(client: DaemonClient, name: str) -> list[Body]:
    """What is said of a model; nothing where the key may not look at that."""
    try:
        return items((await client.model_settings(name)).get("holds"))
    except ApiError:
        return []
