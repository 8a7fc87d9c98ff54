"""What a workload measured, computed from its answers. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from kolosal.bench.answer import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The figures of one run of one workload; None where one does not apply. The names are keys of the JSON output."""

    requests: int = 0
    wall_s: float | None = None
    """From the first request to the last byte."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    characters: int | None = None
    ttft_p50_s: float | None = None
    """Time to the first text."""
    ttft_max_s: float | None = None
    gap_p50_s: float | None = None
    """Time between two pieces of one answer; a piece can be several tokens."""
    gap_p99_s: float | None = None
    gap_max_s: float | None = None
    decode_tok_s: float | None = None
    """Tokens after the first one by the time they took: the median of the streams."""
    total_tok_s: float | None = None
    """All generated tokens by the wall time."""
    chars_s: float | None = None
    """All characters by the wall time."""
    valid_answers: int | None = None
    """Answers that are what was asked for; only where that can be told."""
    load_s: float | None = None
    """Until the model was loaded, where the server tells."""
    rss_bytes: int | None = None
    """Resident memory of the server's processes after the run."""
    note: str | None = None


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie, linear between neighbours. `values` is not empty."""
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def measure(
    answers: Sequence[Answer],
    *,
    first: Sequence[Answer] | None = None,
    gaps: Sequence[float] | None = None,
    valid_answers: int | None = None,
    note: str | None = None,
) -> Measures:
    """The figures of `answers`. `first` are those whose first token counts, `gaps` those that count, if not all."""
    wall = max(answer.ended_at for answer in answers) - min(answer.sent_at for answer in answers)
    ttfts = [answer.ttft_s for answer in (answers if first is None else first)]
    gaps = [gap for answer in answers for gap in answer.gaps] if gaps is None else gaps
    rates = [rate for answer in answers if (rate := answer.decode_tok_s) is not None]
    tokens = _total(answer.completion_tokens for answer in answers)
    characters = sum(len(answer.text) for answer in answers)
    return Measures(
        requests=len(answers),
        wall_s=wall,
        prompt_tokens=_total(answer.prompt_tokens for answer in answers),
        cached_tokens=_total(answer.cached_tokens for answer in answers),
        completion_tokens=tokens,
        characters=characters,
        ttft_p50_s=percentile(ttfts, 50),
        ttft_max_s=max(ttfts),
        gap_p50_s=percentile(gaps, 50) if gaps else None,
        gap_p99_s=percentile(gaps, 99) if gaps else None,
        gap_max_s=max(gaps, default=None),
        decode_tok_s=median(rates) if rates else None,
        total_tok_s=None if tokens is None else tokens / wall,
        chars_s=characters / wall,
        valid_answers=valid_answers,
        note=note,
    )


def median_of(runs: Sequence[Measures]) -> Measures:
    """Each figure's median over several runs of one workload; the last note that any run has."""
    middles: dict[str, Any] = {}
    for field in fields(Measures):
        values = [value for run in runs if (value := getattr(run, field.name)) is not None]
        if field.name == "note":
            middles["note"] = values[-1] if values else None
        else:
            counts = all(isinstance(value, int) for value in values)
            middle = median(values) if values else None
            middles[field.name] = round(middle) if middle is not None and counts else middle
    return Measures(**middles)


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum, or None where any is unknown."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)
