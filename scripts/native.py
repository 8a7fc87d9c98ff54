"""Builds llama.cpp into `.venv` by a preset of CMakePresets.json, or tells what a preset would do.

run.py and test.py build by themselves when it is needed; this is for looking, and for building again on purpose (new
driver, new compiler).
"""

from __future__ import annotations

import argparse
import shlex

from bootstrap import Goal, Setup
from cli import main_guard
from environment import ROOT

from kolosal.native.build import this_machines_preset
from kolosal.native.presets import Presets


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="scripts/native.py", description=__doc__.split("\n\n")[0])
    parse.add_argument("--preset", default=this_machines_preset(), help="which one (default: %(default)s)")
    parse.add_argument("--list", action="store_true", help="list the presets and stop")
    parse.add_argument(
        "--print-args", action="store_true", help="print the preset's CMake arguments and stop"
    )
    parse.epilog = "Arguments in the CMAKE_ARGS environment variable are added after the preset's."
    return parse


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    presets = Presets.load(ROOT)
    if options.list:
        for name in presets.selectable():
            print(f"{name:<8} {presets.display_name(name)}")
        return 0
    if options.print_args:
        print(shlex.join(presets.cmake_args(options.preset)))
        return 0
    Setup(ROOT, Goal(options.preset, model=False, rebuild=True)).ensure()
    print(f"llama.cpp was built with preset '{options.preset}'.")
    return 0


if __name__ == "__main__":
    main_guard(main)
