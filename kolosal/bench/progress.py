"""Signs of life while a benchmark runs: a moving bar on a terminal, one plain line a workload elsewhere."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from kolosal.bench.report import Result, Status, summary

REFRESH_PER_SECOND = 4
"""Drawing competes with the server for the processor."""


class BenchProgress:
    """What a benchmark tells on a stream while it runs. A context manager, in which the bar is drawn."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[answers]}"),
            TimeElapsedColumn(),
            console=Console(file=stream),
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            disable=not stream.isatty(),
        )
        self._task = self._bar.add_task("connecting", total=None, answers="")
        self._answers = 0

    def __enter__(self) -> BenchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, runs: int) -> None:
        """So many runs there will be, of all workloads together."""
        self._bar.update(self._task, total=runs)

    def start(self, name: str, number: int, repeat: int) -> None:
        """A run of a workload begins, the `number`th of `repeat`."""
        self._answers = 0
        title = name if repeat == 1 else f"{name} {number}/{repeat}"
        self._bar.update(self._task, description=title, answers="")

    def answered(self) -> None:
        """One answer has come."""
        self._answers += 1
        self._bar.update(self._task, answers=f"{self._answers} answers")

    def finish(self, result: Result, repeat: int) -> None:
        """All `repeat` runs of a workload are over, or a failure has ended them."""
        self._bar.advance(self._task, repeat)  # runs that a failure left out count as done
        if self._bar.disable:
            self._stream.write(f"{summary(result)}\n")
            self._stream.flush()
        elif result.status is not Status.OK:
            self._bar.console.print(summary(result), markup=False, highlight=False)
