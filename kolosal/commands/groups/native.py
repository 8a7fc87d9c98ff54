"""`kolosal native`."""

# ruff: noqa: PLC0415 - see the package
from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="llama.cpp, built for this machine or its GPU.", no_args_is_help=True)


@app.command("build", epilog="Example: kolosal native build --preset cuda")
def native_build(
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cpu, cuda, vulkan, metal or rocm; else this machine's."),
    ] = None,
    print_args: Annotated[
        bool, typer.Option("--print-args", help="Print the preset's CMake arguments and stop.")
    ] = False,
) -> None:
    """Build llama.cpp here, in place of the one that is installed. Takes some minutes and a C++ compiler."""
    from kolosal.commands import native as command

    raise typer.Exit(command.build(preset, print_args=print_args))


@app.command("presets", epilog="Example: kolosal native presets")
def native_presets() -> None:
    """List the presets, of CMakePresets.json."""
    from kolosal.commands import native as command

    command.list_presets()
