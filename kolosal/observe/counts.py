"""What is counted of requests: pure numbers, without names of metrics and without a clock."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histogram of times to the first token, in seconds."""

DURATION_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the histogram of whole durations, in seconds."""


OUTPUT_RATE_BUCKETS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0)
"""Upper bounds of the histogram of how fast generations were, in tokens a second."""


class Outcome(StrEnum):
    """How a request ended."""

    RUNNING = "running"
    """It has not ended; never counted."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Its client left."""


class Histogram:
    """Counts of values by bounded buckets."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        """How many values were within each bound but not within the one before; the last: beyond all."""
        self.total = 0.0
        """The sum of all values."""

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.buckets)

    def add(self, value: float) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Counts:
    """What is counted of one engine, or of all."""

    started: int = 0
    """Generations."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Generations that failed, by the code of their error."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """How many of `prompt_tokens` were found in the KV cache."""
    output_tokens: int = 0
    output_s: float = 0.0
    """From the first tokens of generations to their ends."""
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_BUCKETS_S))
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BUCKETS_S))
    output_rate: Histogram = field(default_factory=lambda: Histogram(OUTPUT_RATE_BUCKETS))
    """Tokens a second of generations that made at least two."""
    unary_calls: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """Calls that generate nothing, by kind and outcome."""
    loads: int = 0
    deaths: int = 0
    """Workers that ended by themselves."""
    first_at: float | None = None
    """When the first request started, on the monotonic clock."""
    updated_ms: int | None = None
    """Unix time in milliseconds of the last change."""

    @property
    def ended(self) -> int:
        """Generations that have ended."""
        return sum(self.outcomes.values())

    @property
    def running(self) -> int:
        """Generations that run or wait."""
        return self.started - self.ended

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.prompt_tokens + self.output_tokens


def ratio(part: float, whole: float) -> float:
    """`part / whole`, 0 where there is nothing to divide by, rounded as JSON shows it."""
    return round(part / whole, 3) if whole > 0 else 0.0
