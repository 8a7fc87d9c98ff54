"""`kolosal native`: llama.cpp built for this machine, or for its GPU."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from kolosal.commands.errors import CommandError
from kolosal.native.build import build_installed, presets_root, this_machines_preset
from kolosal.native.preflight import SetupError
from kolosal.native.presets import Presets


def build(preset: str | None, *, print_args: bool) -> int:
    """Build llama.cpp into the environment of this program; in a checkout its own script does that. The exit status."""
    name, root = preset or this_machines_preset(), presets_root()
    with _for_the_user():
        args = Presets.load(root).cmake_args(name)
        if print_args:
            typer.echo(shlex.join(args))
            return 0
        script = root / "scripts" / "native.py"
        if script.exists():  # it also notes what was built, so that scripts/run.py does not build again
            return subprocess.run([sys.executable, str(script), "--preset", name], check=False).returncode
        build_installed(name)
    typer.echo(f"llama.cpp was built with preset '{name}'. Restart the daemon to use it.")
    return 0


def list_presets() -> None:
    """The names of all, and what they are for."""
    with _for_the_user():
        presets = Presets.load(presets_root())
        for name in presets.selectable():
            typer.echo(f"{name:<8} {presets.display_name(name)}")


@contextmanager
def _for_the_user() -> Iterator[None]:
    try:
        yield
    except SetupError as exc:
        for line in exc.detail:
            typer.echo(f"  | {line}", err=True)
        raise CommandError(str(exc)) from exc
