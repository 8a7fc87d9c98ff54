"""JSON that takes long to read or to write is read and written in a thread, so that it does not hold up everyone's tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

THREAD_ABOVE_BYTES = 256 * 1024
"""JSON up to this length takes about a millisecond, and a thread would cost more than it saves."""

PIECE_BYTES, LOGPROB_BYTES = 32, 64
"""What the piece of a token, and the log-probabilities in its place, count as: about what they cost to write."""


async def in_thread_if_large(n_bytes: int, work: Callable[[], T]) -> T:
    """The result of `work`, which reads or writes about so many bytes of JSON."""
    return await asyncio.to_thread(work) if n_bytes > THREAD_ABOVE_BYTES else work()
