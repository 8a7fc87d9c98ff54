"""Commands about the engines of a running daemon."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from typing import Annotated

import typer

from kolosal.commands.groups.options import ConfigFile, EngineId, Json, Url, ask

app = typer.Typer()


@app.command(epilog="Example: kolosal load tiny models/tiny.gguf --n-ctx 8192 --set cache_type_k=q8_0")
def load(
    engine_id: EngineId,
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="The model: a .gguf file, or a folder that holds one; of another backend, what that loads.",
        ),
    ] = "",
    backend: Annotated[
        str | None, typer.Option(help="What generates: llamacpp, transformers, echo, or one that was added.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of that backend; can be repeated."),
    ] = None,
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
    placement: Annotated[
        str | None, typer.Option(help="Where it runs: local, or ray for the cluster of the daemon.")
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(metavar="N|MIN-MAX", help="How many processes answer in the cluster, as 2 or 1-4."),
    ] = None,
    num_gpus: Annotated[int | None, typer.Option(help="GPUs of each process in the cluster.")] = None,
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
        "backend": backend,
        "backend_options": command.parameters(option, "--option") if option else None,
        "n_ctx": n_ctx,
        "n_gpu_layers": n_gpu_layers,
        "main_gpu_id": main_gpu,
        "n_parallel": n_parallel,
        "kv_pool_tokens": kv_pool_tokens,
        "placement": placement,
        "replicas": command.replicas(replicas) if replicas else None,
        "num_gpus": num_gpus,
        "load_immediately": False if lazy else None,
    }
    options = command.parameters(other or ()) | {
        key: value for key, value in named.items() if value is not None
    }
    ask(url, config, lambda client: command.load(client, engine_id, path, options))


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

    ask(url, config, lambda client: command.unload(client, engine_ids, keep=keep))


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
    ask(url, config, lambda client: show(client, as_json=as_json))


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

    ask(url, config, lambda client: show_logs(client, engine_id, tail=tail, follow=follow))


@app.command(epilog="Example: kolosal activity -f --model tiny")
def activity(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and show each request that ends. Ctrl-C ends it.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, max=10_000, help="How many of the last requests.")
    ] = 20,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only requests to this model.")] = None,
    key: Annotated[str | None, typer.Option(metavar="NAME", help="Only requests with this API key.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only those that ended so: completed, failed or cancelled.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Show who asked which model, how many tokens that took, how fast, and how it ended. No prompts and no answers."""
    from kolosal.commands.activity import show_activity

    filters = {name: value for name, value in (("model", model), ("key", key), ("outcome", outcome)) if value}
    ask(
        url,
        config,
        lambda client: show_activity(client, filters, tail=tail, follow=follow, as_json=as_json),
    )


@app.command(epilog="Example: kolosal status tiny")
def status(
    engine_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="An engine's name.")] = None,
    as_json: Json = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Show the health of the running daemon, or all about one engine."""
    from kolosal.commands import status as command

    ask(url, config, lambda client: command.status(client, engine_id, as_json=as_json))
