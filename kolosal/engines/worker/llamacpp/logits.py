"""StepLogits: the rows of logits of one step, as an array in llama.cpp's own memory: writing to it changes what is sampled."""

from __future__ import annotations

import numpy as np

from kolosal.engines.worker.llamacpp.native import native


class StepLogits:
    """What the last `llama_decode` of a context has computed. Rows are numbered in the order they were asked for.

    One view is made for a step, and where nothing but the most probable tokens are wanted, one search for all of its rows.
    """

    def __init__(self, context: native.llama_context_p, n_vocab: int) -> None:
        self.context = context
        self._n_vocab = n_vocab
        self._n_rows = 0
        self._all_greedy = False
        self._rows: np.ndarray | None = None
        self._best: list[int] | None = None

    def begin(self, n_rows: int, *, all_greedy: bool) -> None:
        """Note that a step was computed. `all_greedy`: the most probable token of each row is wanted, and no row is changed."""
        self._n_rows, self._all_greedy = n_rows, all_greedy
        self._rows = self._best = None

    def index(self, output: int) -> int:
        """What llama.cpp's functions call a row: they count from the batch's last one, which is -1."""
        return output - self._n_rows

    def row(self, output: int) -> np.ndarray:
        """The logits of a row."""
        row: np.ndarray = self._all_rows()[output]
        return row

    def most_probable(self, output: int) -> int:
        """The token of the highest logit of a row, of two the one with the smaller id."""
        if not self._all_greedy:
            return int(self._all_rows()[output].argmax())
        if self._best is None:
            self._best = self._all_rows().argmax(axis=1).tolist()
        return self._best[output]

    def _all_rows(self) -> np.ndarray:
        if self._rows is None:
            first = native.llama_get_logits(self.context)  # after it waited for a GPU
            self._rows = np.ctypeslib.as_array(first, shape=(self._n_rows, self._n_vocab))
        return self._rows
