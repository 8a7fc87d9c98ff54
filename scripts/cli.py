"""How every script ends: one clear line on stderr and an exit status, never a traceback for what the reader can fix."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import checkout  # noqa: F401 - makes the next ones importable

from kolosal.native.preflight import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM or SIGHUP: unwinds like Ctrl-C, so that child processes are ended on the way out."""


def main_guard(main: Callable[[], int]) -> NoReturn:
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminate)
    sys.exit(_status(main))


def _status(main: Callable[[], int]) -> int:
    try:
        return main()
    except SetupError as exc:
        for line in exc.detail:
            print(f"  | {line}", file=sys.stderr)
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: run it again to continue where it was", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated:
        return EXIT_TERMINATED
    except BrokenPipeError:  # the reader of our output went away, as in `run.py --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _terminate(signum: int, _frame: FrameType | None) -> None:
    raise Terminated(signum)
