"""Outbox: frames → the pipe to the daemon, on a thread of its own.

Encoding and writing overlap with the next native step. The queue is bounded: when the daemon does not read, the engine
waits instead of growing.
"""

from __future__ import annotations

import io
import queue
import threading

from kolosal.engines.messages import FromWorker, encode

_MAX_FRAMES = 1024
"""Frames that may wait to be written; then `put` blocks."""


class Outbox:
    """Owns the writing end of the pipe. `put` may be called from any thread; frames keep their order."""

    def __init__(self, pipe: io.RawIOBase) -> None:
        self._pipe = pipe
        self._frames: queue.Queue[FromWorker | bytes | None] = queue.Queue(_MAX_FRAMES)
        self._thread = threading.Thread(target=self._write_frames, name="output", daemon=True)
        self._thread.start()

    def put(self, frame: FromWorker) -> None:
        """Send a frame."""
        self._frames.put(frame)

    def put_raw(self, line: bytes) -> None:
        """Send bytes as they are: how a scripted fault breaks the protocol."""
        self._frames.put(line)

    def close(self, timeout_s: float) -> None:
        """Write what is waiting and stop."""
        self._frames.put(None)
        self._thread.join(timeout_s)

    def _write_frames(self) -> None:
        while (frame := self._frames.get()) is not None:
            data = frame if isinstance(frame, bytes) else encode(frame)
            view = memoryview(data)
            try:
                while view:  # a raw pipe may take a part only
                    view = view[self._pipe.write(view) or 0 :]
            except OSError:
                return  # the daemon is gone; the intake thread sees it too and ends the process
