"""Runs a daemon for minutes or a day, with clients, loads, kills and disconnects, and says whether anything grows.

Three engines of one model serve streaming clients, some of whom leave early. Meanwhile engines are unloaded and loaded
again, and a worker is killed now and then. Each minute gets a line. The table at the end has the slope of the memory
of daemon and workers, what the daemon holds at rest now and before, the time to the first token at the end against the
beginning, and errors that no kill explains. The exit status is 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401 - makes the next ones importable
from bootstrap import Goal, Setup
from cli import main_guard
from environment import ROOT

from kolosal.native.build import this_machines_preset
from kolosal.native.processes import exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """examples:
  python3 scripts/soak.py                            five minutes: enough to see that it works
  python3 scripts/soak.py --minutes 60               an hour: finds what leaks with every request
  python3 scripts/soak.py --hours 24                 the real one: the bounds of the fault suite's row T1
  python3 scripts/soak.py --model /models/qwen3.gguf a model of your own

A run of minutes cannot measure a slope of 1 MB an hour: a few pages of memory touched for the first time would break it.
So its bounds are wider, and the table shows them. Warm-up, a third of the run and at most an hour, is not measured.
Ctrl-C ends the run early, with a table of what was measured by then.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for, and what follows from it. Times are in seconds but for `minutes`."""

    model: Path
    minutes: float = 5.0
    clients: int = 8
    leaves: float = 0.05
    """Which part of the clients' requests is given up early."""
    seed: int = 1

    @classmethod
    def of(cls, given: argparse.Namespace) -> Options:
        minutes = given.minutes if given.hours is None else 60 * given.hours
        return cls(
            model=Path(given.model).absolute(), minutes=minutes, clients=given.clients, seed=given.seed
        )

    @property
    def warm_up_s(self) -> float:
        return min(3600.0, 60 * self.minutes / 3)

    @property
    def measured_s(self) -> float:
        return 60 * self.minutes - self.warm_up_s

    @property
    def churn_s(self) -> float:
        """From one unload to the next: ten minutes in a long run."""
        return min(600.0, self.measured_s / 8)

    @property
    def kill_s(self) -> float:
        """From one kill to the next: an hour in a long run."""
        return min(3600.0, self.measured_s / 3)

    @property
    def sample_s(self) -> float:
        """From one look at the memory to the next."""
        return min(10.0, self.measured_s / 120)

    @property
    def childhood_s(self) -> float:
        """How long a new worker may grow before its memory counts."""
        return min(300.0, self.measured_s / 12)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a time: give a number above 0, such as 5 or 0.5")
    return value


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of clients: allowed are 1 to 256")
    return int(text)


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/soak.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    how_long = parse.add_mutually_exclusive_group()
    how_long.add_argument(
        "--minutes", type=positive, default=5.0, help="how long, warm-up included (default: 5)"
    )
    how_long.add_argument("--hours", type=positive, help="the same in hours")
    parse.add_argument(
        "--model", default="", metavar="PATH", help="a GGUF file (default: SmolLM2-135M, which is installed)"
    )
    parse.add_argument(
        "--clients", type=count, default=8, help="clients that ask at the same time (default: 8)"
    )
    parse.add_argument(
        "--seed", type=int, default=1, help="of what is asked when, and who leaves (default: 1)"
    )
    parse.add_argument(
        "--preset", default=this_machines_preset(), help="how llama.cpp is compiled (default: %(default)s)"
    )
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(given)
    setup = Setup(ROOT, Goal(options.preset, model=not options.model))
    found = setup.ensure()
    program = str(ROOT / "scripts" / "soak_run.py")
    model = [] if options.model else ["--model", found.model]
    command = [str(setup.environment.python), program, *given, *model]
    child = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the child, which still prints its table
    try:
        return exit_code(child.wait())
    finally:
        if child.poll() is None:
            child.terminate()


if __name__ == "__main__":
    main_guard(main)
