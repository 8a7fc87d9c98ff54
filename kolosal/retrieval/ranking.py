"""Ranking: which vectors are nearest to those of a query. Imports numpy when first used, in a thread: an idle daemon does without."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankedChunk:
    """A chunk and how well it answers."""

    score: float
    """0 to 1: the cosine of the angle between its vector and the query's."""
    block: int
    """What the caller knows the chunk's block by."""
    index: int
    """Its place in there."""


@dataclass(frozen=True, slots=True)
class VectorBlock:
    """Vectors of consecutive chunks."""

    id: int
    vectors: bytes
    """float32, little-endian, each of length 1, one after the other."""


class NearestChunks:
    """The best chunks of all that are shown, in little memory however many those are."""

    def __init__(self, queries: Sequence[bytes], limit: int, threshold: float = 0.0) -> None:
        """`queries`: vectors, of which the nearest counts; `threshold`: the least score."""
        self._queries = queries
        self._limit = limit
        self._threshold = threshold
        self._best: list[tuple[float, int, int]] = []

    def show(self, blocks: Sequence[VectorBlock]) -> None:
        """Look at some. To be called in a thread.

        Raises:
            ValueError: vectors are of another length than the query's.
        """
        import numpy as np  # noqa: PLC0415 - see above

        queries = np.stack([np.frombuffer(query, dtype="<f4") for query in self._queries])
        for block in blocks:
            vectors = np.frombuffer(block.vectors, dtype="<f4").reshape(-1, queries.shape[1])
            scores = (vectors @ queries.T).max(axis=1).clip(0.0, 1.0)
            count = min(self._limit, len(scores))
            for index in np.argpartition(-scores, count - 1)[:count].tolist():
                self._take(float(scores[index]), block.id, index)

    def ranked(self) -> list[RankedChunk]:
        """The best, the best first; of equal ones those that were kept first."""
        return [
            RankedChunk(score, -block, -index) for score, block, index in sorted(self._best, reverse=True)
        ]

    def _take(self, score: float, block: int, index: int) -> None:
        found = (score, -block, -index)
        if score < self._threshold:
            return
        if len(self._best) < self._limit:
            heapq.heappush(self._best, found)
        elif found > self._best[0]:
            heapq.heapreplace(self._best, found)
