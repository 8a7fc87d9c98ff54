"""For `bench_peers.py`: two servers side by side: which figures are compared, what is to be reached, and the table of ratios. Pure.

A ratio is ours by theirs, of the medians over all rounds. Whether more or less of a figure is better stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from rich import box
from rich.table import Table

from kolosal.bench.measures import Measures
from kolosal.bench.report import number


class Side(StrEnum):
    """Who is measured."""

    OURS = "ours"
    THEIRS = "llama-server"
    THEIRS_SPLIT = "llama-server, cells for each"
    """Without --kv-unified: each of its slots has cells of its own."""
    THEIRS_NGRAM = "llama-server, n-gram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    workload: str
    key: str
    """A field of `Measures`."""
    label: str
    more_is_better: bool = False
    reach: float | None = None
    """The ratio to reach; None where none was set."""
    most: float | None = None
    """What ours may be at most, whatever theirs is."""
    peer: Side = Side.THEIRS

    @property
    def target(self) -> str:
        if self.reach is None:
            return ""
        return f"{'≥' if self.more_is_better else '≤'} {self.reach:g}" + (
            f", ≤ {self.most:g} s" if self.most is not None else ""
        )


def _more(
    workload: str, key: str, label: str, reach: float | None = None, peer: Side = Side.THEIRS
) -> Figure:
    return Figure(workload=workload, key=key, label=label, more_is_better=True, reach=reach, peer=peer)


def _less(
    workload: str, key: str, label: str, reach: float | None = None, most: float | None = None
) -> Figure:
    return Figure(workload=workload, key=key, label=label, reach=reach, most=most)


FIGURES = (
    _more("one_stream", "decode_tok_s", "one stream: decode tok/s (target: speculation off)", 1.0),
    _less("one_stream", "ttft_p50_s", "one stream: first token, s"),
    _more("streams_8", "total_tok_s", "8 streams: total tok/s", 1.1),
    _less("shared_prompt_16", "wall_s", "16 users, shared prompt: wall, s", 0.10),
    _less("shared_prompt_16", "ttft_p50_s", "16 users, shared prompt: first token p50, s"),
    _less("turns_4x5", "wall_s", "4 users, growing turns: wall, s", 0.80),
    _less("returning_20", "ttft_p50_s", "20 returning users: first token p50, s"),
    _more("json_schema_4", "chars_s", "JSON schema: characters/s", 1.5),
    _less("json_schema_4", "wall_s", "JSON schema: wall, s"),
    _more("repeat_text", "decode_tok_s", "repeat a text: decode tok/s", 2.0),
    _more("repeat_text", "decode_tok_s", "repeat a text: against its n-gram mode", 1.0, Side.THEIRS_NGRAM),
    _more("edit_code", "decode_tok_s", "repeat code with a change: decode tok/s", 2.0),
    _more("edit_code", "decode_tok_s", "repeat code: against its n-gram mode", 1.0, Side.THEIRS_NGRAM),
    _less("long_prompt_beside_3", "gap_max_s", "long prompt beside 3: worst gap, s", 0.06, 0.3),
    _less("long_prompt_beside_3", "ttft_max_s", "long prompt beside 3: its first token, s", 1.2),
    _less("rag_8", "wall_s", "8 users, same documents in another order: wall, s"),
    _less("agent_loop", "wall_s", "agent, 12,000 tokens and 10 turns: wall, s"),
    _more("short_64", "total_tok_s", "64 short users: total tok/s"),
    _less("load", "ttft_max_s", "load to first token, s", 0.9),
    _less("one_stream", "rss_bytes", "resident memory after one stream, MiB", 0.6),
    _less("long_prompt_beside_3", "rss_bytes", "resident memory after the long prompt, MiB", 0.6),
)

Rounds = Mapping[tuple[str, Side], Sequence[Measures]]
"""Every counted round by workload and side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A figure with both sides' values, one a round."""

    figure: Figure
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        if not self.ours or not self.theirs or median(self.theirs) == 0:
            return None
        return median(self.ours) / median(self.theirs)

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is no target or no ratio."""
        figure, ratio = self.figure, self.ratio
        if figure.reach is None or ratio is None:
            return None
        enough = ratio >= figure.reach if figure.more_is_better else ratio <= figure.reach
        return enough and (figure.most is None or median(self.ours) <= figure.most)


def lines(rounds: Rounds, figures: Sequence[Figure] = FIGURES) -> list[Line]:
    """The lines of all figures that our side has."""
    made = [
        Line(
            figure=figure,
            ours=_values(rounds, figure, Side.OURS),
            theirs=_better(rounds, figure),
        )
        for figure in figures
    ]
    return [line for line in made if line.ours or line.theirs]


def ratio_table(rows: Sequence[Line]) -> Table:
    """Medians with the least and greatest of the rounds, the ratio and the target."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in ("figure", "ours", "llama-server", "ratio", "target", ""):
        table.add_column(header, justify="left" if header == "figure" else "right", no_wrap=True)
    words = {True: "reached", False: "NOT reached", None: ""}
    for row in rows:
        scale = 2**20 if row.figure.key == "rss_bytes" else 1
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        sides = (_spread(row.ours, scale), _spread(row.theirs, scale))
        table.add_row(row.figure.label, *sides, ratio, row.figure.target, words[row.reached])
    return table


def _better(rounds: Rounds, figure: Figure) -> tuple[float, ...]:
    """The peer's values: of its two ways to keep cells those that are better."""
    sides = (Side.THEIRS, Side.THEIRS_SPLIT) if figure.peer is Side.THEIRS else (figure.peer,)
    ways = [values for values in (_values(rounds, figure, side) for side in sides) if values]
    return (max if figure.more_is_better else min)(ways, key=median, default=())


def _values(rounds: Rounds, figure: Figure, side: Side) -> tuple[float, ...]:
    runs = rounds.get((figure.workload, side), ())
    values = (getattr(run, figure.key) for run in runs)
    return tuple(value for value in values if value is not None)


def _spread(values: Sequence[float], scale: float) -> str:
    if not values:
        return "failed"
    low, middle, high = (number(value / scale) for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}-{high})"
