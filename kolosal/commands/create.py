"""`kolosal create` and `kolosal cp`: a model made of another one, and another name for one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from kolosal.commands.answers import Body
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import CommandError
from kolosal.commands.text import printable
from kolosal.config.yaml_file import parse_value
from kolosal.models.ollama_settings import MAX_MODELFILE_CHARS, Modelfile, read_modelfile

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class NewModel:
    """What the options say. They win over a Modelfile."""

    name: str
    base: str | None
    system: str | None
    parameters: Sequence[str]
    """`KEY=VALUE`, by the names of a Modelfile."""
    modelfile: Path | None


async def create(client: DaemonClient, new: NewModel) -> None:
    """Make the model.

    Raises:
        CommandError: a file cannot be read, or the daemon refuses.
    """
    read = Modelfile() if new.modelfile is None else _read(new.modelfile)
    base = new.base or read.base
    if base is None:
        raise CommandError("give --from MODEL, or a Modelfile with -f FILE")
    if read.adapter is not None:
        raise CommandError("adapters are not supported: leave ADAPTER out")
    body: Body = {
        "model": new.name,
        "stream": False,
        "system": read.system if new.system is None else new.system,
        "template": read.template,
        "license": [*read.license],
        "parameters": {**read.parameters, **_given(new.parameters)},
        "messages": [{"role": role, "content": text} for role, text in read.messages],
    }
    file = _model_file(base, new.modelfile)
    if file is None:
        body["from"] = base
    else:
        body["files"] = {file.name: await _sent(client, file)}
    answer = await client.create_model(body)
    notes = answer.get("notes")
    for note in notes if isinstance(notes, list) else []:
        typer.echo(printable(str(note)))
    typer.echo(printable(f"{new.name} is made of {base}"))


async def cp(client: DaemonClient, source: str, alias: str) -> None:
    """Give a model another name."""
    await client.copy_model(source, alias)
    typer.echo(printable(f"{alias} is another name of {source}"))


def _read(path: Path) -> Modelfile:
    try:
        with path.open(encoding="utf-8") as file:
            return read_modelfile(file.read(MAX_MODELFILE_CHARS + 1))
    except OSError as exc:
        raise CommandError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:  # also what is no UTF-8
        raise CommandError(f"{path}: {exc}") from exc


def _given(options: Sequence[str]) -> Body:
    """Parameters of the command line; one that is given several times is a list, as `stop` may be."""
    given: Body = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            raise CommandError(f"--parameter: must be KEY=VALUE, not {option!r}")
        if name == "stop":
            before = given.get(name, [])
            given[name] = [*(before if isinstance(before, list) else []), text]
        else:
            given[name] = parse_value(text, "--parameter")
    return given


def _model_file(base: str, modelfile: Path | None) -> Path | None:
    """The file that `FROM` names, seen from the Modelfile's folder; None where it names a model."""
    if not base.lower().endswith(".gguf"):
        return None
    path = Path(base).expanduser()
    path = path if modelfile is None else modelfile.parent / path
    if not path.is_file():
        raise CommandError(f"{path}: there is no such file")
    return path


async def _sent(client: DaemonClient, path: Path) -> str:
    """The digest of a file that the daemon has."""
    hashed = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                hashed.update(chunk)
        digest = f"sha256:{hashed.hexdigest()}"
        await client.send_blob(path, digest)
    except OSError as exc:
        raise CommandError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    return digest
