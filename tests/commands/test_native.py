"""`kolosal native` in a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kolosal.native.build import presets_root
from tests.commands.conftest import Cli

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_shows_what_the_script_shows(cli: Cli) -> None:
    """`scripts/native.py` and `kolosal native` are one implementation."""
    script = [sys.executable, str(ROOT / "scripts" / "native.py")]

    def run(*options: str) -> str:
        return subprocess.run([*script, *options], capture_output=True, text=True, check=True).stdout

    assert cli("native", "presets").out == run("--list")
    assert cli("native", "build", "--preset", "cuda", "--print-args").out == run(
        "--preset", "cuda", "--print-args"
    )
    assert presets_root() == ROOT


def test_an_unknown_preset_names_the_known_ones(cli: Cli) -> None:
    done = cli("native", "build", "--preset", "gpu")
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: unknown preset 'gpu'. Known presets: cpu, cuda, vulkan, metal, rocm\n"
