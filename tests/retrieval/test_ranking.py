from __future__ import annotations

import struct

import pytest

from kolosal.retrieval.ranking import NearestChunks, RankedChunk, VectorBlock


def packed(*vectors: tuple[float, float]) -> bytes:
    return b"".join(struct.pack("<2f", *vector) for vector in vectors)


BLOCKS = [
    VectorBlock(7, packed((1, 0), (0, 1), (-1, 0))),
    VectorBlock(8, packed((0.6, 0.8), (1, 0))),
]


def test_best_come_first_whichever_block_they_are_in() -> None:
    nearest = NearestChunks([packed((1, 0))], 3)
    for block in BLOCKS:
        nearest.show([block])

    best = nearest.ranked()
    assert best[:2] == [RankedChunk(1.0, 7, 0), RankedChunk(1.0, 8, 1)]
    assert (best[2].block, best[2].index) == (8, 0)
    assert best[2].score == pytest.approx(0.6)


def test_of_equal_chunks_those_kept_first_are_among_the_best() -> None:
    nearest = NearestChunks([packed((1, 0))], 1)
    nearest.show(BLOCKS)

    assert nearest.ranked() == [RankedChunk(1.0, 7, 0)]


def test_score_is_no_less_than_zero_and_may_have_to_be_more() -> None:
    opposite, close = NearestChunks([packed((-1, 0))], 9), NearestChunks([packed((1, 0))], 9, threshold=0.5)
    opposite.show(BLOCKS)
    close.show(BLOCKS)

    assert [found.score for found in opposite.ranked()] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert len(close.ranked()) == 3


def test_of_several_queries_the_nearest_counts() -> None:
    nearest = NearestChunks([packed((1, 0)), packed((0, 1))], 2)
    nearest.show(BLOCKS[:1])

    assert [found.index for found in nearest.ranked()] == [0, 1]


def test_vectors_of_another_model_are_refused() -> None:
    nearest = NearestChunks([struct.pack("<4f", 1, 0, 0, 0)], 2)
    with pytest.raises(ValueError, match="reshape"):
        nearest.show(BLOCKS)
