"""LayerSlices: when a chunk in the prefill context lets the streams take a step, and what its layers take.

Between two layers of a long prompt the processor is free for a moment: there the streams take a step, as soon as the target time
has passed since their last one. So a long prompt is read at many rows, and nobody's stream waits for more than a layer or two.
Where a step itself takes longer than that, the prompt has as much time as the streams, so that it comes to its end.
"""

from __future__ import annotations

from collections.abc import Callable

_MOST_TARGETS = 4
"""Target times that a prompt may be read for between two steps, however long a step takes."""


class LayerSlices:
    """The layers of one chunk."""

    def __init__(self, target_step_s: float, clock: Callable[[], float]) -> None:
        self._target_step_s = self._wait_s = target_step_s
        self._clock = clock
        self._stepped_at = self._resumed_at = self._paused_at = clock()
        self._seconds, self._n_slices = 0.0, 0

    @property
    def mean_s(self) -> float:
        """What a layer took."""
        return self._seconds / max(1, self._n_slices)

    def pause(self) -> bool:
        """A layer is done; returns whether a step is due: nearer to the target time than after the next layer."""
        self._paused_at = self._clock()
        self._seconds += self._paused_at - self._resumed_at
        self._n_slices += 1
        return self._paused_at - self._stepped_at + self.mean_s / 2 >= self._wait_s

    def resume(self, *, stepped: bool) -> None:
        """The next layer begins."""
        self._resumed_at = self._clock()
        if stepped:
            self._stepped_at = self._resumed_at
            step_s = self._resumed_at - self._paused_at
            self._wait_s = min(max(self._target_step_s, step_s), _MOST_TARGETS * self._target_step_s)
