"""Commands about models: fetching them, making some of others, and talking to one."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kolosal.commands.groups.options import ConfigFile, Json, Url, ask

if TYPE_CHECKING:
    from kolosal.commands.address import Address
    from kolosal.config.settings import Settings

app = typer.Typer()

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: fetch whatever it is.")]


def complete_model(incomplete: str) -> list[str]:
    """What shells offer for MODEL."""
    from kolosal.commands.completion import model_names

    return model_names(incomplete)


@app.command(epilog="Example: kolosal pull hf.co/Qwen/Qwen3-0.6B-GGUF --quant Q8_0")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="hf.co/ORG/REPO[:QUANT or FILE], ollama:NAME[:TAG], or https://HOST/FILE.gguf.",
        ),
    ],
    quant: Annotated[
        str | None,
        typer.Option(metavar="QUANT", help="Which quantisation, as Q4_K_M; else the best that fits here."),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Fetch a model. Ctrl-C keeps what is there, and the same command goes on with it."""
    import asyncio

    from kolosal.commands import pull as command
    from kolosal.commands.client import DaemonClient

    address, settings = _daemon_or_settings(url, config)

    async def pull() -> None:
        async with DaemonClient(address) as client:
            await command.pull(client, settings, name, quant, yes=yes, as_json=as_json)

    asyncio.run(pull())


@app.command(epilog="Example: kolosal search qwen3 0.6b")
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS...", help="Parts of the name.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many at most.")] = 20,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Look for models on Hugging Face's hub."""
    from kolosal.commands.address import daemon_configuration
    from kolosal.commands.search import search as command

    command(daemon_configuration(config).settings, " ".join(words), limit=limit, as_json=as_json)


@app.command(epilog="Example: kolosal create mario --from tiny --system 'You are Mario.' -p temperature=0.2")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new model's name.")],
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="The model, or .gguf file, it is made of.",
            autocompletion=complete_model,
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="KEY=VALUE",
            help="As in a Modelfile, e.g. num_ctx=8192; can be repeated.",
        ),
    ] = None,
    modelfile: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="A Modelfile; options win over it.")
    ] = None,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Make a model of another one, with a system prompt and parameters of its own. Its weights are not copied."""
    from kolosal.commands import create as command

    new = command.NewModel(name, base, system, parameter or (), modelfile)
    ask(url, config, lambda client: command.create(client, new))


@app.command(epilog="Example: kolosal cp tiny gpt-4o-mini")
def cp(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model that there is.", autocompletion=complete_model),
    ],
    alias: Annotated[str, typer.Argument(metavar="NAME", help="Its other name.")],
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Give a model another name. Nothing is copied, and nothing loaded twice."""
    from kolosal.commands import create as command

    ask(url, config, lambda client: command.cp(client, source, alias))


def _daemon_or_settings(url: str | None, config: Path | None) -> tuple[Address, Settings | None]:
    """The daemon that is meant, and how to do without it; None where it was named."""
    from kolosal.commands.address import configured_address, daemon_configuration, named_address

    if url:
        return named_address(url), None
    configuration = daemon_configuration(config)
    return configured_address(configuration), configuration.settings


@app.command(epilog='Example: kolosal run models/tiny.gguf "Why is the sky blue?"')
def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An engine's name, the path of a .gguf file, or a model to fetch, as hf.co/ORG/REPO:Q4_K_M.",
            autocompletion=complete_model,
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="One question; without it, a conversation.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the conversation.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the most probable word.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Length of an answer at most, in tokens.")] = None,
    yes: Yes = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Talk to a model in the terminal.

    A .gguf file is loaded first unless it already is; a model that is not here is fetched, after a question. Where no daemon
    runs, one is started for the conversation and stopped after it. Text piped into the command is one question, as PROMPT is.
    """
    from kolosal.commands.address import configured_address, daemon_configuration, named_address
    from kolosal.commands.chat import this_terminal
    from kolosal.commands.child_daemon import ChildSpec
    from kolosal.commands.run import RunRequest
    from kolosal.commands.run import run as run_chat
    from kolosal.commands.text import decode_piped

    if prompt is None and not sys.stdin.isatty():
        prompt = decode_piped(sys.stdin.buffer.read(), sys.stdin.encoding)
    given = {"temperature": temperature, "max_tokens": max_tokens}
    options = {key: value for key, value in given.items() if value is not None}
    request = RunRequest(model, prompt, system, {**options}, fetch_unasked=yes)
    if url:
        run_chat(request, named_address(url), None, this_terminal())
        return
    configuration = daemon_configuration(config)
    child = ChildSpec.of(configuration)
    run_chat(request, configured_address(configuration), child, this_terminal())
