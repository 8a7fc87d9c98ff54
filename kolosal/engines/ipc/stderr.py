"""StderrReader: what a worker writes to stderr, passed on as it comes, and its end kept to explain a death."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

STDERR_TAIL_BYTES = 8 * 1024
"""How much of a worker's stderr is kept to explain its death."""

_LAST_WORDS_CHARS = 300


class StderrReader:
    """Reads until the worker closes its stderr; `task` ends then. The bound is that of the tail, however much comes."""

    def __init__(self, pipe: asyncio.StreamReader, engine_id: str, on_chunk: Callable[[bytes], None]) -> None:
        """`on_chunk` gets each piece of output, and an empty one at the end."""
        self._pipe = pipe
        self._engine_id = engine_id
        self._on_chunk = on_chunk
        self._tail = b""
        self.task = asyncio.create_task(self._read())

    @property
    def last_words(self) -> str:
        """The last line so far, as an addition to a reason; empty where there is none."""
        last = self._tail.decode(errors="replace").strip().rpartition("\n")[2][:_LAST_WORDS_CHARS]
        return f" (its last words: {last})" if last else ""

    async def _read(self) -> None:
        while chunk := await self._pipe.read(STDERR_TAIL_BYTES):
            self._on_chunk(chunk)
            self._tail = (self._tail + chunk)[-STDERR_TAIL_BYTES:]
            if log.isEnabledFor(logging.DEBUG):
                text = chunk.decode(errors="replace").rstrip()
                log.debug("worker.stderr", extra={"engine_id": self._engine_id, "text": text})
        self._on_chunk(b"")
