"""One answer: its text, its token counts, and when each piece of it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer. Times are of one monotonic clock, in seconds."""

    text: str
    sent_at: float
    arrivals: tuple[float, ...]
    """When each piece of text arrived; a piece can be several tokens. Never empty."""
    ended_at: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def ttft_s(self) -> float:
        """Seconds from the request to the first piece of text."""
        return self.arrivals[0] - self.sent_at

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]

    @property
    def decode_tok_s(self) -> float | None:
        """Tokens per second after the first one; None where there is no count or no time between."""
        seconds = self.arrivals[-1] - self.arrivals[0]
        if self.completion_tokens is None or self.completion_tokens < 2 or seconds <= 0:
            return None
        return (self.completion_tokens - 1) / seconds

    def gaps_within(self, start: float, end: float) -> list[float]:
        """The gaps of which any part lies between two moments."""
        return [
            later - earlier for earlier, later in pairwise(self.arrivals) if later > start and earlier < end
        ]
