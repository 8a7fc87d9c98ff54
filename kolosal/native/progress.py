"""Running one long command with a visible sign of life: a bar on a terminal, a plain line now and then elsewhere.

Owns the reading of build output (ninja's "[n/m]") and the drawing. Every line of the command goes to a log file; only
progress is shown. Knows nothing of what the command is for.
"""

from __future__ import annotations

import queue
import re
import shutil
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, NamedTuple, TextIO

from kolosal.native.processes import KILL_WAIT_S, end_tree, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

REDRAW_S = 0.5  # how often the elapsed time moves while a command prints nothing
PLAIN_STEP_PERCENT = 10  # without a terminal: one line each time this much more is done
BAR_CHARACTERS = 24
_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_MSBUILD = re.compile(r"^\s*[\w.+-]+\.(?:c|cc|cpp|cu|S|m)\s*(?:\[.*\])?$")
# pip wraps a failed build in a dozen lines that name no cause.
_PIP_WRAPPING = re.compile(
    r"\s*([\u00d7\u2502\u2570]|note: This error|note: This is an issue|hint: See above|full command:|cwd:|Building wheel for |"
    r"(ERROR: )?Failed (building wheel|to build)|ERROR: Could not build wheels|"
    r"error: (subprocess-exited-with-error|failed-wheel-build|metadata-generation-failed))"
)


class Count(NamedTuple):
    """Steps done. `total` is 0 while it is unknown (MSBuild names the files it compiles but never says how many)."""

    done: int
    total: int

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total if self.total else 0


def advance(count: Count, line: str) -> Count:
    """The count after one line of output.

    A nested build (Vulkan's shader generator) prints a smaller total of its own: it must not move the bar back.
    """
    ninja = _NINJA.match(line)
    if ninja:
        done, total = int(ninja.group(1)), int(ninja.group(2))
        if total < count.total or done > total:
            return count
        return Count(max(done, count.done) if total == count.total else done, total)
    if not count.total and _MSBUILD.match(line):
        return Count(count.done + 1, 0)
    return count


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def draw(title: str, count: Count, elapsed: float, columns: int) -> str:
    """One terminal line, never wider than the terminal: a wrapped line cannot be overwritten."""
    if count.total:
        filled = BAR_CHARACTERS * count.done // count.total
        bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
        text = f"{title}  [{bar}] {count.percent:3d} %  {count.done}/{count.total}  {clock(elapsed)}"
    elif count.done:
        text = f"{title}  {count.done} files compiled  {clock(elapsed)}"
    else:
        text = f"{title}  {clock(elapsed)}"
    return text[: max(columns - 1, 20)]


class Reporter:
    """Shows one command's progress on `out`. Called from one thread only."""

    def __init__(self, title: str, out: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._title, self._out, self._now = title, out, now
        self._tty = out.isatty()
        self._started = now()
        self._shown_percent = 0
        self._count = Count(0, 0)
        self._drawn = ""
        if not self._tty:
            self._plain(f"{title} ...")

    def line(self, text: str) -> None:
        self._count = advance(self._count, text)
        if not self._tty and self._count.percent >= self._shown_percent + PLAIN_STEP_PERCENT:
            self._shown_percent = self._count.percent - self._count.percent % PLAIN_STEP_PERCENT
            self._plain(f"{self._title}: {self._shown_percent} %, {clock(self._elapsed())}")

    def tick(self) -> None:
        if self._tty:
            columns = shutil.get_terminal_size().columns
            self._redraw(draw(self._title, self._count, self._elapsed(), columns))

    def finish(self, word: str) -> None:
        text = f"{self._title}: {word}, {clock(self._elapsed())}"
        if self._tty:
            self._redraw(text)
            self._plain("")
        else:
            self._plain(text)

    def _elapsed(self) -> float:
        return self._now() - self._started

    def _redraw(self, text: str) -> None:
        if text != self._drawn:  # a compiler's warnings come by the thousand
            self._out.write(f"\r\x1b[K{text}")
            self._out.flush()
            self._drawn = text

    def _plain(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


def run_logged(title: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
    """Run to the end and return the exit status; Ctrl-C ends the whole process tree before it is raised again."""
    reporter = Reporter(title, sys.stdout)
    lines: queue.Queue[str | None] = queue.Queue()
    with log.open("a", encoding="utf-8", errors="replace") as record:
        record.write(f"\n$ {' '.join(argv)}\n")
        record.flush()
        with spawn(argv, env) as child:
            reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
            reader.start()
            try:
                _follow(lines, record, reporter)
                status = child.wait()
            except BaseException:
                end_tree(child)
                reporter.finish("stopped")
                raise
            finally:
                reader.join(KILL_WAIT_S)
    reporter.finish("done" if status == 0 else "failed")
    return status


def _read(pipe: IO[str], lines: queue.Queue[str | None]) -> None:
    for text in pipe:
        lines.put(text)
    lines.put(None)


def _follow(lines: queue.Queue[str | None], record: TextIO, reporter: Reporter) -> None:
    while True:
        try:
            text = lines.get(timeout=REDRAW_S)
        except queue.Empty:
            reporter.tick()
            continue
        if text is None:
            return
        record.write(text)
        reporter.line(text)
        if lines.empty():
            record.flush()
            reporter.tick()


def last_words(log: Path, count: int, width: int = 200) -> list[str]:
    """The end of the log's last command, without the lines that never say why: compiler commands, pip's wrapping."""
    text = "\n" + log.read_text(encoding="utf-8", errors="replace")
    lines = text.rpartition("\n$ ")[2].splitlines()[1:]
    noise = (_NINJA, _PIP_WRAPPING)
    kept = [line.rstrip()[:width] for line in lines if line.strip() and not any(p.match(line) for p in noise)]
    return kept[-count:]
