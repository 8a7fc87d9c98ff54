"""Runs the fault suite at its full sizes and prints one table: fault, figure demanded, figure seen.

The same tests, with small sizes, are part of scripts/test.py. All of it takes about half an hour.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import checkout  # noqa: F401 - makes the next ones importable
from bootstrap import Goal, Setup
from cli import main_guard
from environment import ROOT
from test import MODEL_VARIABLE

from kolosal.native.build import this_machines_preset
from kolosal.native.processes import exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/fault.py",
        description=__doc__,
        epilog="  python3 scripts/fault.py P1 H3        only these rows\n"
        "  python3 scripts/fault.py --short      all rows with small sizes, in a few minutes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("rows", nargs="*", metavar="ROW", help="rows of the table (default: all)")
    parse.add_argument("--short", action="store_true", help="the sizes that scripts/test.py uses")
    parse.add_argument(
        "--preset", default=this_machines_preset(), help="how llama.cpp is compiled (default: %(default)s)"
    )
    return parse


def pytest_arguments(rows: Sequence[str], *, short: bool) -> list[str]:
    """What pytest is told. Random order would mix the rows."""
    sizes = [] if short else ["--full-size"]
    return ["-p", "tests.faults.table", "-p", "no:randomly", "-q", "--fault-rows", ",".join(rows), *sizes]


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    setup = Setup(ROOT, Goal(options.preset, model=True, dev=True))
    found = setup.ensure()
    command = [
        str(setup.environment.python),
        "-m",
        "pytest",
        *pytest_arguments(options.rows, short=options.short),
    ]
    env = {**os.environ, MODEL_VARIABLE: found.model}
    return exit_code(subprocess.run(command, cwd=ROOT, env=env, check=False).returncode)


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
