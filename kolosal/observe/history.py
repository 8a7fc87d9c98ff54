"""History: what the daemon did in the last quarter of an hour, a row every two seconds, for charts.

Owns the rows and how they follow from counts. Knows no clock but the observer's, and takes no sample by itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from kolosal.observe.counts import Outcome
from kolosal.observe.events import now_ms
from kolosal.observe.observer import Observer
from kolosal.observe.system import SystemUse

INTERVAL_S = 2.0
"""Between two rows."""

MAX_ROWS = 450
"""A quarter of an hour."""

_FIRST_TOKENS_S = 30.0
"""First tokens of requests that ended within this time make the percentiles."""

_MAX_FIRST_TOKENS = 1000
"""At most so many of them: a percentile of a thousand is as good as one of more."""

COLUMNS: Final = (
    "time", "output_tokens_per_s", "prompt_tokens_per_s", "requests_per_s", "failed_per_s", "running",
    "ttft_p50_ms", "ttft_p95_ms", "kv_cells", "kv_pool_tokens", "cpu_percent", "memory_used_bytes", "memory_total_bytes",
    "workers_bytes", "gpu_used_bytes", "gpu_total_bytes",
)  # fmt: skip
"""What a row has, in this order."""

Row = tuple[float | None, ...]


class History:
    """Used on the event loop only."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._rows: deque[Row] = deque(maxlen=MAX_ROWS)
        self._before = self._counted()

    def take(self, use: SystemUse, kv_cells: int, kv_pool_tokens: int) -> None:
        """Add a row: rates since the one before, and what is so now."""
        before, self._before = self._before, self._counted()
        passed = max(self._before[0] - before[0], 1e-3)
        rates = (
            round((now - then) / passed, 2) for now, then in zip(self._before[1:], before[1:], strict=True)
        )
        p50, p95 = percentiles(self._first_tokens_ms(), (0.5, 0.95))
        gpus = use.gpus.gpus
        self._rows.append(
            (
                now_ms(),
                *rates,
                self._observer.total.running,
                p50,
                p95,
                kv_cells,
                kv_pool_tokens,
                use.cpu_percent,
                use.memory_total - use.memory_available,
                use.memory_total,
                use.daemon_bytes + sum(use.worker_bytes.values()),
                sum(gpu.used_bytes or 0 for gpu in gpus) if gpus else None,
                sum(gpu.total_bytes or 0 for gpu in gpus) if gpus else None,
            )
        )

    def after(self, time_ms: int) -> list[Row]:
        """Rows that are newer."""
        return [row for row in self._rows if (row[0] or 0) > time_ms]

    def _counted(self) -> tuple[float, ...]:
        total = self._observer.total
        computed = total.prompt_tokens - total.cached_tokens
        failed = total.outcomes[Outcome.FAILED]
        return (self._observer.clock(), total.output_tokens, computed, total.ended, failed)

    def _first_tokens_ms(self) -> Iterable[float]:
        oldest = now_ms() - _FIRST_TOKENS_S * 1000
        for seen, (_, row) in enumerate(self._observer.activity.ring.newest_first()):
            if seen == _MAX_FIRST_TOKENS or row.time + row.duration_ms < oldest:
                return
            if row.ttft_ms is not None:
                yield row.ttft_ms


def percentiles(values: Iterable[float], wanted: Sequence[float]) -> list[float | None]:
    """The values that such parts of all are not above; None where there are none."""
    ranked = sorted(values)
    if not ranked:
        return [None] * len(wanted)
    return [ranked[max(0, math.ceil(part * len(ranked)) - 1)] for part in wanted]
