"""FrameWriter: frames → the pipe to the daemon, written by whichever thread has one.

No thread of its own: handing a frame over and waking another thread takes longer than writing it, and the thread takes a
core from llama.cpp's, which wait for each other (measured: 90 µs a token, and 15 for the write). Where the daemon does not
read, the pipe fills and the engine waits instead of growing.
"""

from __future__ import annotations

import io
import threading

from kolosal.engines.ipc.messages import FromWorker, encode


class FrameWriter:
    """Owns the writing end of the pipe. `write` may be called from any thread; frames are written whole."""

    def __init__(self, pipe: io.RawIOBase) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def write(self, frame: FromWorker) -> None:
        """Send a frame; waits while the daemon does not read."""
        line = encode(frame)
        with self._lock:
            self._write_all(line)

    def write_last(self, frame: FromWorker, timeout_s: float) -> None:
        """Send a frame unless another is stuck in the pipe: for a process that ends either way."""
        if self._lock.acquire(timeout=timeout_s):
            try:
                self._write_all(encode(frame))
            finally:
                self._lock.release()

    def _write_all(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:  # a raw pipe may take a part only
                view = view[self._pipe.write(view) or 0 :]
        except OSError:
            return  # the daemon is gone; the main thread sees it too and ends the process
