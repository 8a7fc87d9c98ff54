"""Chunks: how a text is cut into pieces that are embedded and found. Pure: tokens are counted elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MIN_CHUNK_TOKENS: Final = 100
MAX_CHUNK_TOKENS: Final = 4096

MAX_SEGMENT_CHARS: Final = 320
"""Characters of a segment, so that a chunk is filled and its overlap met closely."""

_ENDS: Final = (
    re.compile(r"\n\s*\n|\f"),  # paragraphs
    re.compile(r"\n+"),
    re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]"),  # noqa: RUF001 - sentences, also where they need no blank
    re.compile(r"[;:,]\s+"),
    re.compile(r"\s+"),
)
"""Where a text is best cut, the best first."""


@dataclass(frozen=True, slots=True)
class ChunkingStrategy:
    """How long chunks are, and how much of one the next repeats."""

    max_chunk_size_tokens: int = 800
    chunk_overlap_tokens: int = 400


def segments(text: str) -> Iterator[str]:
    """The text in pieces of at most `MAX_SEGMENT_CHARS`, cut where it is best cut. Together they are the text."""
    yield from _cut(text, 0)


def _cut(text: str, level: int) -> Iterator[str]:
    if len(text) <= MAX_SEGMENT_CHARS and level > 2:  # a sentence, or less
        if text:
            yield text
        return
    if level == len(_ENDS):
        for start in range(0, len(text), MAX_SEGMENT_CHARS):
            yield text[start : start + MAX_SEGMENT_CHARS]
        return
    start = 0
    for end in _ENDS[level].finditer(text):
        yield from _cut(text[start : end.end()], level + 1)
        start = end.end()
    yield from _cut(text[start:], level + 1)


def halves(segment: str) -> tuple[str, str]:
    """A segment that has more tokens than a chunk may have, as two."""
    middle = len(segment) // 2
    return segment[:middle], segment[middle:]


def chunk_slices(n_tokens: Sequence[int], strategy: ChunkingStrategy) -> Iterator[slice]:
    """Which consecutive segments are each chunk, given how many tokens each segment has.

    Each chunk has as many as fit, but one at least, and begins with as many of the one before as the overlap allows.
    """
    start = 0
    while start < len(n_tokens):
        end, total = start + 1, n_tokens[start]
        while end < len(n_tokens) and total + n_tokens[end] <= strategy.max_chunk_size_tokens:
            total += n_tokens[end]
            end += 1
        yield slice(start, end)
        if end == len(n_tokens):
            return
        repeated, start = 0, end
        # the next one must end later than this one: its first segments and the one after them have to fit
        room = min(strategy.chunk_overlap_tokens, strategy.max_chunk_size_tokens - n_tokens[end])
        while repeated + n_tokens[start - 1] <= room:
            start -= 1
            repeated += n_tokens[start]
