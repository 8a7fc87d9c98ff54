"""Sets this checkout up if needed and runs every check: format, lint, types, import rules, tests with coverage.

All checks run even when one fails. The exit status is 1 when any of them failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from bootstrap import Goal, Setup, this_machines_preset
from cli import main_guard
from environment import ROOT
from processes import exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL_VARIABLE = "KOLOSAL_TEST_MODEL"


class Check(NamedTuple):
    title: str
    argv: list[str]


class Outcome(NamedTuple):
    title: str
    status: int
    seconds: float


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Ours, and pytest's after the first `--`."""
    if "--" not in argv:
        return list(argv), []
    at = list(argv).index("--")
    return list(argv[:at]), list(argv[at + 1 :])


def checks(bin_folder: Path, python: Path, fast: bool, fix: bool, pytest_args: Sequence[str]) -> list[Check]:
    run = [str(python), "-m"]
    selection = ["-m", "not model"] if fast else []
    fixes = [
        Check("fix lint", [*run, "ruff", "check", "--fix", "--quiet", "."]),
        Check("fix format", [*run, "ruff", "format", "."]),
    ]
    static = [
        Check("format", [*run, "ruff", "format", "--check", "."]),
        Check("lint", [*run, "ruff", "check", "."]),
        Check("types", [*run, "mypy"]),
        Check("import rules", [str(bin_folder / "lint-imports")]),
    ]
    if pytest_args:  # a chosen part of the tests cannot reach the coverage floor
        tests = [Check("tests", [*run, "pytest", *selection, *pytest_args])]
    else:
        floor = ["--fail-under=0"] if fast else []  # the configured floor counts the model tests
        tests = [
            Check("tests", [*run, "coverage", "run", "-m", "pytest", *selection]),
            Check("coverage data", [*run, "coverage", "combine", "--quiet"]),
            Check("coverage", [*run, "coverage", "report", "--skip-covered", *floor]),
        ]
    return [*(fixes if fix else []), *static, *tests]


def table(outcomes: Sequence[Outcome]) -> str:
    width = max(len(outcome.title) for outcome in outcomes)
    rows = [
        f"{outcome.title:<{width}}  {'ok    ' if outcome.status == 0 else 'FAILED'}  {outcome.seconds:7.1f} s"
        for outcome in outcomes
    ]
    failed = sum(outcome.status != 0 for outcome in outcomes)
    verdict = f"{failed} of {len(outcomes)} checks failed" if failed else f"all {len(outcomes)} checks passed"
    return "\n".join([*rows, verdict])


def run_check(check: Check, env: dict[str, str]) -> Outcome:
    print(
        f"== {check.title}: {' '.join(check.argv[1:] if '-m' in check.argv[:2] else check.argv[:1])}",
        flush=True,
    )
    started = time.monotonic()
    try:
        status = exit_code(subprocess.run(check.argv, cwd=ROOT, env=env, check=False).returncode)
    except OSError as exc:
        print(f"cannot run it: {exc}", file=sys.stderr)
        status = 1
    seconds = time.monotonic() - started
    print(f"   {'ok' if status == 0 else f'FAILED with exit status {status}'}, {seconds:.1f} s\n", flush=True)
    return Outcome(check.title, status, seconds)


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/test.py",
        description=__doc__,
        epilog="Arguments after -- go to pytest, and coverage is then not measured:\n"
        "  python3 scripts/test.py -- tests/engines -k scheduler -x",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--fast", action="store_true", help="leave out the tests that need the real model")
    parse.add_argument("--fix", action="store_true", help="first repair what ruff can repair")
    parse.add_argument(
        "--preset", default=this_machines_preset(), help="how llama.cpp is compiled (default: %(default)s)"
    )
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    ours, pytest_args = split_arguments(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(ours)
    setup = Setup(ROOT, Goal(options.preset, model=True, dev=True))
    found = setup.ensure()
    env = {**os.environ, MODEL_VARIABLE: found.model}
    environment = setup.environment
    for stale in ROOT.glob(".coverage.*"):  # left by a run that was interrupted: they would be counted again
        stale.unlink(missing_ok=True)
    todo = checks(environment.bin, environment.python, options.fast, options.fix, pytest_args)
    outcomes = [run_check(check, env) for check in todo]
    print(table(outcomes))
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    main_guard(main)
