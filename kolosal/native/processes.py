"""Child processes whose whole tree can be ended, on POSIX and Windows alike.

On POSIX a child gets its own session, so that Ctrl-C reaches only the script, which then decides; on Windows the
console gives Ctrl-C to every process, and a tree is ended with taskkill.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KILL_WAIT_S = 10.0  # how long a killed tree may take to disappear before we go on without it


def spawn(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """A child whose stdout and stderr are one pipe of text lines."""
    return subprocess.Popen(
        list(argv),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=sys.platform != "win32",
    )


def spawn_foreground(argv: Sequence[str], cwd: Path) -> subprocess.Popen[bytes]:
    """A child that keeps this terminal's stdout and stderr."""
    return subprocess.Popen(
        list(argv), cwd=cwd, stdin=subprocess.DEVNULL, start_new_session=sys.platform != "win32"
    )


def ask_to_stop(child: subprocess.Popen[bytes], signum: int) -> None:
    """Pass a stop signal on. On Windows the console has already told the child."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)


def end_tree(child: subprocess.Popen[str]) -> None:
    """As Ctrl-C would, so that pip removes its build folders (half a gigabyte); then without mercy."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(KILL_WAIT_S)
    kill_tree(child)


def kill_tree(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Idempotent: a tree that is gone already is left in peace."""
    if child.poll() is not None and sys.platform == "win32":
        return
    if sys.platform == "win32":
        taskkill = shutil.which("taskkill") or "taskkill"
        subprocess.run([taskkill, "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
        child.kill()  # should taskkill be missing or refuse
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(KILL_WAIT_S)


def exit_code(status: int) -> int:
    """What a shell would report: a child ended by signal n counts as 128 + n."""
    return 128 - status if status < 0 else status
