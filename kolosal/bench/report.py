"""A benchmark's results as a table for people and as JSON for programs.

The JSON has a number for its form and the same keys for every workload; what does not apply is null.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from kolosal import __version__
from kolosal.bench.measures import Measures, median_of

JSON_FORM = 1
"""Raised when a key of the JSON output is removed or changes its meaning."""

PLAIN_WIDTH = 140
"""Columns of a table that is not printed to a terminal."""


class Status(StrEnum):
    """How a workload went."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(slots=True)
class Result:
    """One workload and its runs."""

    name: str
    title: str
    status: Status = Status.OK
    reason: str | None = None
    """Why it was skipped or failed."""
    runs: list[Measures] = field(default_factory=list)

    @property
    def median(self) -> Measures | None:
        return median_of(self.runs) if self.runs else None


@dataclass(slots=True)
class Report:
    """A whole benchmark."""

    url: str
    model: str
    seed: int
    repeat: int
    started_at: datetime
    results: list[Result] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(result.status is Status.FAILED for result in self.results)


_COLUMNS: tuple[tuple[str, Callable[[Measures], str]], ...] = (
    ("TTFT\np50 s", lambda m: number(m.ttft_p50_s)),
    ("TTFT\nmax s", lambda m: number(m.ttft_max_s)),
    ("gap\np50 s", lambda m: number(m.gap_p50_s)),
    ("gap\np99 s", lambda m: number(m.gap_p99_s)),
    ("gap\nmax s", lambda m: number(m.gap_max_s)),
    ("tok/s\nstream", lambda m: number(m.decode_tok_s)),
    ("tok/s\ntotal", lambda m: number(m.total_tok_s)),
    ("chars/s\ntotal", lambda m: number(m.chars_s)),
    ("wall\ns", lambda m: number(m.wall_s)),
    ("valid\n", lambda m: "" if m.valid_answers is None else f"{m.valid_answers:g}/{m.requests:g}"),
    ("RSS\nMiB", lambda m: "" if m.rss_bytes is None else f"{m.rss_bytes / 2**20:.0f}"),
)


def print_table(report: Report) -> None:
    """One table of medians to stdout; what was skipped, failed or is remarkable stands below it."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=PLAIN_WIDTH)
    done = [(result, figures) for result in report.results if (figures := result.median)]
    shown = [column for column in _COLUMNS if any(column[1](figures) for _, figures in done)]
    runs = "" if report.repeat == 1 else f", medians of {report.repeat} runs"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("workload", vertical="bottom")
    for header, _ in shown:
        table.add_column(header, justify="right", no_wrap=True)
    for result, figures in done:
        table.add_row(result.name, *(cell(figures) for _, cell in shown))
    console.print(f"{report.model} at {report.url}{runs}", markup=False, soft_wrap=True)
    if done:
        console.print(table)
    for line in _remarks(report):
        console.print(line, markup=False)


def print_json(report: Report) -> None:
    """The whole report to stdout, in one object."""
    sys.stdout.write(orjson.dumps(as_json(report), option=orjson.OPT_INDENT_2).decode() + "\n")


def as_json(report: Report) -> dict[str, object]:
    """The report with the keys that programs may rely on."""
    return {
        "form": JSON_FORM,
        "kolosal": __version__,
        "url": report.url,
        "model": report.model,
        "seed": report.seed,
        "repeat": report.repeat,
        "started_at": report.started_at.isoformat(timespec="seconds"),
        "workloads": [
            {
                "name": result.name,
                "title": result.title,
                "status": result.status.value,
                "reason": result.reason,
                "median": asdict(result.median) if result.median else None,
                "runs": [asdict(run) for run in result.runs],
            }
            for result in report.results
        ],
    }


def summary(result: Result) -> str:
    """One workload in one line."""
    if result.status is not Status.OK:
        return f"{result.name}: {result.status.value}: {result.reason}"
    walls = ", ".join(number(run.wall_s) for run in result.runs)
    return f"{result.name}: ok, wall {walls} s"


def number(value: float | None) -> str:
    """Three significant digits, as short as they can be; nothing for no value."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _remarks(report: Report) -> list[str]:
    remarks = [summary(result) for result in report.results if result.status is not Status.OK]
    notes = [(result.name, figures.note) for result in report.results if (figures := result.median)]
    return [*remarks, *(f"{name}: {note}" for name, note in notes if note)]
