"""The `kolosal` command: options and help texts; what a command does is in the module of its name in `commands`.

Each command imports what it needs when it runs, so that `--help` is quick and client commands load no server. One
place turns errors into one line and an exit status: 2 for a configuration that cannot be used, 130 for Ctrl-C, 1 for all else.
"""

# ruff: noqa: PLC0415 - the imports inside commands are the point, see above
from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from kolosal import __version__
from kolosal.commands.errors import CommandError
from kolosal.config.errors import ConfigError

if TYPE_CHECKING:
    from kolosal.commands.client import DaemonClient

EXIT_BAD_CONFIG = 2
EXIT_INTERRUPTED = 130


class _Commands(TyperGroup):
    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run a command; whatever the user can do something about becomes one line on stderr."""
        try:
            return super().invoke(ctx)
        except (ConfigError, CommandError) as exc:
            typer.echo(f"Error: {exc}", err=True)
            raise typer.Exit(EXIT_BAD_CONFIG if isinstance(exc, ConfigError) else 1) from exc
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    name="kolosal",
    help="Many language models on one machine, behind one server. `kolosal serve` starts it; `kolosal run` talks.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
keys_app = typer.Typer(
    help="Make, list and revoke API keys. A running daemon notices at once.", no_args_is_help=True
)
app.add_typer(config_app, name="config")
app.add_typer(keys_app, name="keys")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file; else KOLOSAL_CONFIG, ./config.yaml, or yours.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The daemon's address; else the configured host and port."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EngineId = Annotated[str, typer.Argument(metavar="ID", help="The engine's name.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kolosal {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a character the console does not have must not end an answer
            stream.reconfigure(errors="replace")


@app.command(epilog="Example: kolosal serve --port 9000 --model tiny=models/tiny.gguf")
def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="TCP port to listen on.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="ID=PATH", help="An engine to add at start; can be repeated."),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    log_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write log lines to this file as well.")
    ] = None,
) -> None:
    """Start the daemon and stay in the foreground. Ctrl-C stops it, after the running answers."""
    from kolosal.commands.address import daemon_configuration

    flags = {
        "host": host,
        "port": port,
        "log_level": log_level,
        "log_format": log_format,
        "log_file": log_file,
    }
    configuration = daemon_configuration(config, flags, models=model or ())
    from kolosal.commands import serve as command  # the server, not before the settings are right

    raise typer.Exit(command.serve(configuration))


@app.command(epilog="Example: kolosal load tiny models/tiny.gguf --n-ctx 8192 --set cache_type_k=q8_0")
def load(
    engine_id: EngineId,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="The model: a .gguf file, or a folder that holds one.")
    ],
    n_ctx: Annotated[
        int | None, typer.Option(help="Tokens one request may use, prompt and answer together.")
    ] = None,
    n_gpu_layers: Annotated[
        int | None, typer.Option(help="Layers kept in GPU memory; 0 none, -1 all.")
    ] = None,
    main_gpu: Annotated[int | None, typer.Option(help="The GPU to use, counted from 0.")] = None,
    n_parallel: Annotated[int | None, typer.Option(help="Requests answered at the same time.")] = None,
    kv_pool_tokens: Annotated[
        int | None, typer.Option(help="Cells of the KV cache that all requests share.")
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other loading parameter; can be repeated."),
    ] = None,
    lazy: Annotated[bool, typer.Option("--lazy", help="Load at first use, not now.")] = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Add an engine to the running daemon, and wait until its model is loaded."""
    from kolosal.commands import load as command

    named = {
        "n_ctx": n_ctx,
        "n_gpu_layers": n_gpu_layers,
        "main_gpu_id": main_gpu,
        "n_parallel": n_parallel,
        "kv_pool_tokens": kv_pool_tokens,
        "load_immediately": False if lazy else None,
    }
    options = command.parameters(other or ()) | {
        key: value for key, value in named.items() if value is not None
    }
    _ask(url, config, lambda client: command.load(client, engine_id, path, options))


@app.command(epilog="Example: kolosal unload tiny")
def unload(
    engine_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The engines' names.")],
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the names: the next request loads the model again.")
    ] = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Remove engines from the running daemon and free their memory. Running answers finish first."""
    from kolosal.commands import unload as command

    _ask(url, config, lambda client: command.unload(client, engine_ids, keep=keep))


@app.command(epilog="Example: kolosal ps --watch")
def ps(
    as_json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and show every change. Ctrl-C ends it.")
    ] = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """List the engines of the running daemon. Looking loads nothing."""
    from kolosal.commands import ps as command
    from kolosal.commands.ps_watch import watch_engines

    show = watch_engines if watch else command.ps
    _ask(url, config, lambda client: show(client, as_json=as_json))


@app.command(epilog="Example: kolosal logs tiny -f")
def logs(
    engine_id: EngineId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and show new lines. Ctrl-C ends it.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, max=2000, help="How many of the last lines.")
    ] = 100,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Show what an engine's process wrote to its log: warnings and errors of llama.cpp, and how it ended."""
    from kolosal.commands.logs import show_logs

    _ask(url, config, lambda client: show_logs(client, engine_id, tail=tail, follow=follow))


@app.command(epilog="Example: kolosal status tiny")
def status(
    engine_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="An engine's name.")] = None,
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Show the health of the running daemon, or all about one engine."""
    from kolosal.commands import status as command

    _ask(url, config, lambda client: command.status(client, engine_id, as_json=as_json))


@app.command(epilog='Example: kolosal run models/tiny.gguf "Why is the sky blue?"')
def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An engine's name, or the path of a .gguf file.")
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="One question; without it, a conversation.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the conversation.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the most probable word.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Length of an answer at most, in tokens.")] = None,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Talk to a model in the terminal.

    A .gguf file is loaded first unless it already is. Where no daemon runs, one is started for the conversation and
    stopped after it. Text piped into the command is one question, as PROMPT is.
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
    request = RunRequest(model, prompt, system, {**options})
    if url:
        run_chat(request, named_address(url), None, this_terminal())
        return
    configuration = daemon_configuration(config)
    child = ChildSpec.of(configuration)
    run_chat(request, configured_address(configuration), child, this_terminal())


@app.command(epilog="Example: kolosal doctor")
def doctor(config: ConfigFile = None) -> None:
    """Check this machine: Python, llama.cpp, GPUs, memory, configuration, address. Exit status 1 if something will not work."""
    from kolosal.commands import doctor as command

    raise typer.Exit(0 if command.doctor(config) else 1)


@app.command(epilog="Example: kolosal bench --only one_stream,streams_8 --repeat 3")
def bench(
    *,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Any OpenAI-compatible API; else this machine's daemon."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to ask; else the first model the server lists.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Sent as a bearer token; else KOLOSAL_API_KEY, or the daemon's own."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Some workloads only; can be repeated.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each workload.")] = 1,
    seed: Annotated[int | None, typer.Option(help="The same prompts again; else fresh ones.")] = None,
    pid: Annotated[
        list[int] | None, typer.Option(help="A process of the server, for its memory; can be repeated.")
    ] = None,
    start_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Starts another server like it on {port}, to measure its loading."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one request may take.")] = 600.0,
    show_list: Annotated[bool, typer.Option("--list", help="Name the workloads and stop.")] = False,
    as_json: Json = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the daemon's address is.")
    ] = None,
) -> None:
    """Measure a server with the same workloads as our own figures: first tokens, gaps, tokens a second, memory."""
    from kolosal.bench.client import Target
    from kolosal.bench.run import BenchOptions, list_workloads, run_bench
    from kolosal.commands.address import address_to_measure

    if show_list:
        list_workloads()
        return
    address = address_to_measure(url, api_key, config)
    target = Target(
        url=address.url,
        model=model or "",
        api_key=address.api_key,
        timeout_s=timeout,
        start_command=start_command,
    )
    options = BenchOptions(
        target=target, only=only or (), repeat=repeat, seed=seed, as_json=as_json, pids=pid or ()
    )
    raise typer.Exit(run_bench(options))


@config_app.command("show", epilog="Example: kolosal config show --config server.yaml")
def config_show(as_json: Json = False, config: ConfigFile = None) -> None:
    """Show every setting, its value, and where that came from."""
    from kolosal.commands import config_show as command
    from kolosal.commands.address import daemon_configuration

    command.config_show(daemon_configuration(config), as_json=as_json)


KeysConfig = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file of the daemon.")
]


@keys_app.command("create", epilog="Example: kolosal keys create laptop --scope inference --scope admin")
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called, e.g. for whom it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="inference (default) or admin; can be repeated."),
    ] = None,
    config: KeysConfig = None,
) -> None:
    """Make a key and print it, once: only its digest is kept."""
    from kolosal.commands.keys import create_key

    create_key(config, name, scope or ())


@keys_app.command("list", epilog="Example: kolosal keys list --json")
def keys_list(as_json: Json = False, config: KeysConfig = None) -> None:
    """List the keys that `kolosal keys create` made, without the keys themselves."""
    from kolosal.commands.keys import list_keys

    list_keys(config, as_json=as_json)


@keys_app.command("revoke", epilog="Example: kolosal keys revoke laptop")
def keys_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name or id.")],
    config: KeysConfig = None,
) -> None:
    """Take a key back: the next request with it is refused."""
    from kolosal.commands.keys import revoke_key

    revoke_key(config, name)


def _ask(url: str | None, config: Path | None, command: Callable[[DaemonClient], Awaitable[None]]) -> None:
    """Carry a command out against the daemon that is meant."""
    from kolosal.commands.address import configured_address, daemon_configuration, named_address
    from kolosal.commands.client import DaemonClient

    address = named_address(url) if url else configured_address(daemon_configuration(config))

    async def ask() -> None:
        async with DaemonClient(address) as client:
            await command(client)

    asyncio.run(ask())
