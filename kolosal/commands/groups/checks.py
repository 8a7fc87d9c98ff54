"""Commands that look at this machine, and measure servers."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kolosal.commands.groups.options import ConfigFile, Json

app = typer.Typer()


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
