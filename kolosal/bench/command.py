"""The `kolosal bench` command: its options, and nothing of what it does. Light to import, because every command imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the daemon's address is.")
    ] = None,
) -> None:
    """Measure a server with the same workloads as our own figures: first tokens, gaps, tokens a second, memory."""
    from kolosal.bench.run import BenchOptions, list_workloads, run_bench  # noqa: PLC0415
    from kolosal.config.load import load_settings, process_environment  # noqa: PLC0415

    if show_list:
        list_workloads()
        return
    api_key = api_key or process_environment().get("KOLOSAL_API_KEY") or None
    if url is None:
        settings = load_settings(config_path=config).settings
        url = settings.server.url
        if api_key is None and settings.auth.api_key is not None:
            api_key = settings.auth.api_key.get_secret_value()
    options = BenchOptions(
        url=url,
        model=model,
        api_key=api_key,
        only=only or (),
        repeat=repeat,
        seed=seed,
        as_json=as_json,
        pids=pid or (),
        start_command=start_command,
        timeout_s=timeout,
    )
    raise typer.Exit(run_bench(options))
