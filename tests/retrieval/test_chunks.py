from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kolosal.retrieval.chunks import (
    MAX_SEGMENT_CHARS,
    ChunkingStrategy,
    chunk_slices,
    segments,
)

TEXTS = st.text(st.sampled_from("ab .,\n!。中\f"), max_size=2000)


@given(TEXTS)
def test_segments_are_the_text_in_short_pieces(text: str) -> None:
    pieces = [*segments(text)]

    assert "".join(pieces) == text
    assert all(0 < len(piece) <= MAX_SEGMENT_CHARS for piece in pieces)


def test_text_is_cut_at_sentences_and_lines() -> None:
    assert [*segments("One. Two!\nThree\n\nFour。Five")] == ["One. ", "Two!\n", "Three\n\n", "Four。", "Five"]


def test_sentence_that_is_too_long_is_cut_at_its_commas() -> None:
    part = "word " * 40
    assert [*segments(f"{part}, {part}")] == [f"{part}, ", part]


@given(
    st.lists(st.integers(0, 100), max_size=60),
    st.integers(100, 400).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most // 2))),
)
def test_chunks_have_what_fits_and_repeat_no_more_than_asked(
    counts: list[int], limits: tuple[int, int]
) -> None:
    strategy = ChunkingStrategy(*limits)
    chunks = [*chunk_slices(counts, strategy)]

    covered = {index for chunk in chunks for index in range(chunk.start, chunk.stop)}
    assert covered == set(range(len(counts)))
    assert all(sum(counts[chunk]) <= strategy.max_chunk_size_tokens for chunk in chunks)
    for one, other in pairwise(chunks):
        assert one.start < other.start <= one.stop < other.stop
        assert sum(counts[other.start : one.stop]) <= strategy.chunk_overlap_tokens
        assert sum(counts[one]) + counts[one.stop] > strategy.max_chunk_size_tokens


def test_overlap_is_filled() -> None:
    strategy = ChunkingStrategy(100, 50)
    assert [*chunk_slices([25] * 7, strategy)] == [slice(0, 4), slice(2, 6), slice(4, 7)]
