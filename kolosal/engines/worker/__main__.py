"""A worker process: `python -m kolosal.engines.worker`.

Speaks the frames of `kolosal.engines.ipc.messages` over stdin and stdout. Started by the daemon; to look at one by hand, type
a hello frame. It takes no options: what to load is in that frame.

Exit status: 0 after a shutdown frame, 1 when loading or the engine failed (a fatal frame says why), 2 for a broken
protocol, 3 when the daemon is gone.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TypeAlias

from kolosal.engines.ipc.messages import PROTOCOL_VERSION, Fatal, FrameError, Hello, Progress, Ready
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.worker.backend import Backend, BackendError
from kolosal.engines.worker.frame_writer import FrameWriter
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.preprocessor import Preprocessor, read_frame
from kolosal.engines.worker.process_limits import limit_this_process
from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from kolosal.engines.worker.templates.template import ChatTemplate

_STOP_TIMEOUT_S = 3.0
"""How long a shutdown waits for the step at hand; then the process ends without it."""

BackendFactory: TypeAlias = Callable[[EngineConfig, Callable[[float], None]], Backend]
"""Loads a model, and reports how much of it is there, from 0 to 1. Raises `BackendError`."""


def main(make_backend: BackendFactory) -> int:
    """Load one model and serve it until the daemon says stop or is gone; returns the exit status."""
    limit_this_process()
    frames_in, frames_out = _claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which drains first
    writer = FrameWriter(frames_out)
    try:
        hello = read_frame(frames_in)
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL_VERSION:
            raise FrameError(f"expected a hello of protocol {PROTOCOL_VERSION}, got {hello}")
        watch = _end_with_the_daemon(frames_in)
        with contextlib.closing(TemplateRenderer()) as renderer:
            try:
                renderer.start()  # ready before the model is
                backend = make_backend(hello.config, lambda fraction: writer.write(Progress(fraction)))
                template = ChatTemplate(backend, hello.config.parameters.chat_template, renderer)
            except (BackendError, TemplateFailed, OSError) as exc:
                return _fatal(writer, str(exc), status=1)
            if template.origin == "chatml":
                renderer.close()  # a model without a template may never be chatted with
            writer.write(Ready(backend.info))
            watch.join()  # until the first frame: a reader beside it could lose what it peeked
            return _serve(backend, template, writer, frames_in, hello.config.parameters)
    except FrameError as exc:
        return _fatal(writer, f"The daemon broke the protocol: {exc}", status=2)


def _serve(
    backend: Backend,
    template: ChatTemplate,
    writer: FrameWriter,
    frames_in: io.BufferedReader,
    parameters: LoadingParameters,
) -> int:
    loop = EngineLoop(backend, writer.write, target_step_s=parameters.target_step_ms / 1000)
    thread = threading.Thread(target=_run_engine, args=(loop, writer), name="engine", daemon=True)
    thread.start()
    preprocessor = Preprocessor(backend, template, loop, writer.write, speculation=parameters.speculation)
    if not preprocessor.serve(frames_in):
        os._exit(3)  # nobody is left to read; also ends a native call that is running
    loop.stop()
    closed = preprocessor.close(_STOP_TIMEOUT_S)
    thread.join(_STOP_TIMEOUT_S)
    if thread.is_alive() or not closed:
        os._exit(0)
    backend.close()
    return 0


def _run_engine(loop: EngineLoop, writer: FrameWriter) -> None:
    try:
        loop.run()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the engine cannot go on
        traceback.print_exc()
        os._exit(_fatal(writer, f"{type(exc).__name__}: {exc}", status=1))


def _fatal(writer: FrameWriter, message: str, *, status: int) -> int:
    writer.write_last(Fatal(message), _STOP_TIMEOUT_S)
    return status


def _claim_pipes() -> tuple[io.BufferedReader, io.RawIOBase]:
    """Take stdin and stdout for frames, before any native import.

    ggml has live printfs, so file descriptor 1 becomes a copy of stderr, and 0 an empty file.
    """
    frames_in = os.fdopen(os.dup(0), "rb")
    frames_out = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull, "rb") as empty:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(empty.fileno(), 0)
    os.dup2(2, 1)
    return frames_in, frames_out


def _end_with_the_daemon(frames_in: io.BufferedReader) -> threading.Thread:
    """Watch the pipe while the model loads and nobody reads it: a load may take minutes after the daemon is gone."""

    def watch() -> None:
        if not frames_in.peek(1):  # waits for the first byte, takes none
            os._exit(3)

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    return thread


def _load_with_llama_cpp(config: EngineConfig, on_progress: Callable[[float], None]) -> Backend:
    """The backend, whose module is imported only here: that takes most of the start-up time, and may fail."""
    try:
        from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as exc:
        raise BackendError(f"llama.cpp's library cannot be loaded: {exc}") from exc
    return LlamaCppBackend(config, on_progress)


if __name__ == "__main__":
    sys.exit(main(_load_with_llama_cpp))
