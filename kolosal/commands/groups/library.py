"""Commands about the models on the disks of the daemon's machine."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from typing import Annotated

import typer

from kolosal.commands.groups.models import complete_model
from kolosal.commands.groups.options import ConfigFile, Json, Url, ask

app = typer.Typer()


@app.command("list", epilog="Example: kolosal list qwen")
def list_models(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD...]", help="Only models whose names have these words."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """List the models on the disks of the daemon's machine, those of Hugging Face, Ollama and LM Studio too."""
    from kolosal.commands import library as command

    ask(url, config, lambda client: command.list_models(client, words or [], as_json=as_json))


@app.command(epilog="Example: kolosal show Qwen3-8B-Q4_K_M")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model's name.", autocompletion=complete_model)
    ],
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Show what is known of a model, and where each of its settings comes from. Looking loads nothing."""
    from kolosal.commands import library as command

    ask(url, config, lambda client: command.show_model(client, name, as_json=as_json))


@app.command(epilog="Example: kolosal rm Qwen3-8B-Q4_K_M")
def rm(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The models' names.", autocompletion=complete_model)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Remove models with their files from the disk."""
    from kolosal.commands import library as command

    ask(url, config, lambda client: command.remove_models(client, names, yes=yes, as_json=as_json))
