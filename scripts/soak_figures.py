"""The arithmetic of the soak: slopes, parts of a run, and which bounds its figures keep. Pure: no clock, no system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from kolosal.bench.measures import percentile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_MB_PER_HOUR = 1.0
"""What a process may grow."""

NOISE_MB = 4.0
"""What it may grow within a run at any rate: over minutes, a few pages that were touched for the first time make a slope."""

MAX_TTFT_RATIO = 1.1
"""How much longer the first token may take at the end of a long run, at the 99th percentile."""

MAX_TTFT_RATIO_SHORT = 2.0
"""The same for a run whose percentiles are those of a few hundred requests."""

LONG_HOURS = 2.0
"""From here on a run is a long one."""

MIN_REQUESTS = 20
"""A percentile of fewer says nothing."""

PART_HOURS = 1.0
"""The beginning and the end that are compared; a third of a run that is shorter than three of them."""


class Sample(NamedTuple):
    """What was seen at a time, in seconds from any beginning."""

    at_s: float
    value: float


def slope(groups: Iterable[Sequence[Sample]]) -> float | None:
    """The least-squares growth per second within groups of samples, one slope for all of them.

    Each group may begin at a value of its own, as processes do that follow each other. None where no group has samples of two
    times.
    """
    products = squares = 0.0
    for samples in groups:
        if not samples:
            continue
        mean_at = sum(one.at_s for one in samples) / len(samples)
        mean = sum(one.value for one in samples) / len(samples)
        products += sum((one.at_s - mean_at) * (one.value - mean) for one in samples)
        squares += sum((one.at_s - mean_at) ** 2 for one in samples)
    return products / squares if squares else None


def grown_up(samples: Sequence[Sample], childhood_s: float) -> list[Sample]:
    """The samples of a process but for its first seconds."""
    return [one for one in samples if one.at_s - samples[0].at_s >= childhood_s]


def first_and_last(samples: Sequence[Sample], hours: float) -> tuple[float | None, float | None]:
    """The 99th percentile of the beginning and of the end of a run that began at 0 s; None where there is too little."""
    part_s = 3600 * min(PART_HOURS, hours / 3)
    first = [one.value for one in samples if one.at_s < part_s]
    last = [one.value for one in samples if one.at_s >= 3600 * hours - part_s]
    return _p99(first), _p99(last)


def _p99(values: Sequence[float]) -> float | None:
    return percentile(values, 99) if len(values) >= MIN_REQUESTS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a soak has seen, after its warm-up."""

    hours: float
    daemon_mb_per_hour: float | None
    workers_mb_per_hour: float | None
    files: int
    """How many more file descriptors (Windows: handles) at the end than at the beginning, both at rest; and so on."""
    threads: int
    children: int
    ttft_first_s: float | None
    ttft_last_s: float | None
    unexplained: int
    """Answers of 5xx, errors within streams, and connections that broke, without one of our kills behind it."""
    exit_status: int | None


class Line(NamedTuple):
    """One line of the table."""

    figure: str
    seen: str
    bound: str
    kept: bool


def mb_per_hour_limit(hours: float) -> float:
    """How steep a slope may be that was measured over so many hours."""
    return max(MAX_MB_PER_HOUR, NOISE_MB / hours)


def verdict(figures: Figures) -> list[Line]:
    """Each figure beside its bound."""
    return [
        _growth("memory of the daemon", figures.daemon_mb_per_hour, figures.hours),
        _growth("memory of the workers", figures.workers_mb_per_hour, figures.hours),
        _same("file descriptors", figures.files),
        Line("threads", f"{figures.threads:+d}", "<= 0", figures.threads <= 0),
        _same("worker processes", figures.children),
        _ttft(figures.ttft_first_s, figures.ttft_last_s, figures.hours),
        Line("unexplained errors", str(figures.unexplained), "0", figures.unexplained == 0),
        Line("exit status", str(figures.exit_status), "0", figures.exit_status == 0),
    ]


def _growth(figure: str, mb_per_hour: float | None, hours: float) -> Line:
    limit = mb_per_hour_limit(hours)
    bound = f"< {limit:.1f} MB/h"
    if mb_per_hour is None:
        return Line(figure, "not measured", bound, False)
    return Line(figure, f"{mb_per_hour:+.2f} MB/h", bound, mb_per_hour < limit)


def _same(figure: str, change: int) -> Line:
    return Line(figure, f"{change:+d}" if change else "±0", "±0", change == 0)


def _ttft(first_s: float | None, last_s: float | None, hours: float) -> Line:
    limit = MAX_TTFT_RATIO if hours >= LONG_HOURS else MAX_TTFT_RATIO_SHORT
    bound = f"<= {limit:g} x"
    if not first_s or not last_s:
        return Line("p99 TTFT, end / beginning", "too few requests", bound, False)
    ratio = last_s / first_s
    seen = f"{last_s * 1000:.0f} / {first_s * 1000:.0f} ms = {ratio:.2f} x"
    return Line("p99 TTFT, end / beginning", seen, bound, ratio <= limit)


def table(lines: Sequence[Line]) -> str:
    """As a person reads it."""
    rows = [
        ("figure", "seen", "bound", ""),
        *((*line[:3], "ok" if line.kept else "BROKEN") for line in lines),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    )
