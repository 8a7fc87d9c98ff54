"""Running a system's own tool, and a log file read as its tool would."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kolosal.service.errors import ServiceError

TOOL_TIMEOUT_S = 60.0
"""A question of state is answered in milliseconds; a stop is bounded by the service itself."""
LOOK_INTERVAL_S = 0.3
"""Between two looks at a log that is followed."""
_TAIL_BYTES = 1 << 20


def run_tool(*argv: str, timeout_s: float = TOOL_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run it to its end, whatever that is; its output is text.

    Raises:
        ServiceError: it is not there, or does not end.
    """
    try:
        return subprocess.run(
            [_found(argv[0]), *argv[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(
            f"{' '.join(argv)} did not end within {timeout_s:g} seconds: look at it with --help"
        ) from None


def must(*argv: str, timeout_s: float = TOOL_TIMEOUT_S) -> str:
    """Run it, and return what it wrote; a failure is told in its own words."""
    done = run_tool(*argv, timeout_s=timeout_s)
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())
        raise ServiceError(f"{' '.join(argv)}: {words[:500] or f'exit status {done.returncode}'}")
    return done.stdout


def show(*argv: str) -> int:
    """Run it with this terminal, and return its exit status."""
    return subprocess.run([_found(argv[0]), *argv[1:]], check=False, stdin=subprocess.DEVNULL).returncode


def _found(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise ServiceError(f"This system has no {tool}: start `kolosal serve` by what runs services here")
    return path


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log file; nothing where there is none yet."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL_BYTES, 0))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise ServiceError(f"{log}: cannot be read: {exc.strerror or exc}") from exc
    return lines[-count:] if count else []


def following(log: Path, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The lines that are written from now on, also after the file was put aside and a new one begun."""
    position = log.stat().st_size if log.exists() else 0
    while True:
        size = log.stat().st_size if log.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with log.open("rb") as file:
                file.seek(position)
                chunk = file.read(_TAIL_BYTES)
            end = chunk.rfind(b"\n") + 1
            yield from chunk[:end].decode(errors="replace").splitlines()
            position += end
            if end:
                continue
        pause(LOOK_INTERVAL_S)


def print_log(log: Path, *, tail: int, follow: bool, echo: Callable[[str], None]) -> None:
    """The last lines of a log file, and with `follow` those that come."""
    for line in last_lines(log, tail):
        echo(line)
    if follow:
        for line in following(log):
            echo(line)


def quoted_command(command: Sequence[str]) -> str:
    """A command as it is typed."""
    return " ".join(f'"{word}"' if " " in word else word for word in command)
