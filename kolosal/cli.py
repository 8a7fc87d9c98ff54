"""The `kolosal` command. Its commands' options and help texts are in `commands/groups`, what they do in the modules of `commands`.

Each command imports what it needs when it runs, so that `--help` is quick and client commands load no server. One
place turns errors into one line and an exit status: 2 for a configuration that cannot be used, 130 for Ctrl-C, 1 for all else.
"""

# ruff: noqa: PLC0415 - the imports inside commands are the point, see above
from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kolosal import __version__
from kolosal.commands.errors import CommandError
from kolosal.commands.groups import (
    checks,
    cluster,
    config,
    engines,
    keys,
    library,
    models,
    native,
    serve,
    service,
    store,
)
from kolosal.config.errors import ConfigError

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
for group in (serve, engines, models, library, checks):
    app.add_typer(group.app)
app.add_typer(cluster.app, name="cluster")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(service.app, name="service")
app.add_typer(native.app, name="native")
app.add_typer(store.app, name="store")


def _version(wanted: bool) -> None:
    if wanted:
        from kolosal.commands.doctor.facts import probe_installed

        typer.echo(f"kolosal {__version__}")
        typer.echo(probe_installed().description)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the versions, of llama.cpp too."
        ),
    ] = False,
) -> None:
    del version
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a character the console does not have must not end an answer
            stream.reconfigure(errors="replace")
