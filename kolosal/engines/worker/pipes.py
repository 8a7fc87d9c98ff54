"""The pipes of a worker: taken for frames before anything else may write to them, read, watched while a model loads, and closed
with a last word.

What every worker does alike, whatever it generates with.
"""

from __future__ import annotations

import io
import os
import threading

from kolosal.engines.ipc.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Fatal,
    FrameError,
    Hello,
    ToWorker,
    decode_to_worker,
)
from kolosal.engines.worker.frame_writer import FrameWriter

STOP_TIMEOUT_S = 3.0
"""How long a shutdown waits for the step at hand; then the process ends without it."""


def read_frame(pipe: io.BufferedReader) -> ToWorker | None:
    """The next frame; None at the end of the pipe, which means that the daemon is gone.

    Raises:
        FrameError: the line is no frame.
    """
    line = pipe.readline(MAX_FRAME_BYTES + 1)
    return decode_to_worker(line) if line else None


def read_hello(pipe: io.BufferedReader) -> Hello | None:
    """The first frame; None where the daemon is gone before it wanted anything.

    Raises:
        FrameError: it is another one, or of another version of the protocol.
    """
    hello = read_frame(pipe)
    if hello is None:
        return None
    if not isinstance(hello, Hello):
        raise FrameError(f"a hello of protocol {PROTOCOL_VERSION} comes first")
    if hello.protocol != PROTOCOL_VERSION:
        raise FrameError(
            f"its frames are of protocol {hello.protocol} and this worker's of protocol {PROTOCOL_VERSION}: both must be of one version of Kolosal"
        )
    return hello


def claim_pipes() -> tuple[io.BufferedReader, io.RawIOBase]:
    """Take stdin and stdout for frames, before any native import.

    Native libraries print, ggml for one, so file descriptor 1 becomes a copy of stderr, and 0 an empty file.
    """
    frames_in = os.fdopen(os.dup(0), "rb")
    frames_out = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull, "rb") as empty:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(empty.fileno(), 0)
    os.dup2(2, 1)
    return frames_in, frames_out


def end_with_the_daemon(frames_in: io.BufferedReader) -> threading.Thread:
    """Watch the pipe while the model loads and nobody reads it: a load may take minutes after the daemon is gone."""

    def watch() -> None:
        if not frames_in.peek(1):  # waits for the first byte, takes none
            os._exit(3)

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    return thread


def fatal(writer: FrameWriter, message: str, *, status: int, lacked_memory: bool = False) -> int:
    """Say why this worker cannot go on; returns `status`."""
    writer.write_last(Fatal(message, lacked_memory), STOP_TIMEOUT_S)
    return status
