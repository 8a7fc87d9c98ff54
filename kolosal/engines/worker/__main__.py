"""A worker process: `python -m kolosal.engines.worker`.

Speaks the frames of `kolosal.engines.ipc.messages` over stdin and stdout. Started by the daemon; to look at one by hand, type
a hello frame. It takes no options: what to load is in that frame.

Exit status: 0 after a shutdown frame, 1 when loading or the engine failed (a fatal frame says why), 2 for a broken
protocol, 3 when the daemon is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from kolosal.engines.ipc.messages import FrameError, Progress
from kolosal.engines.parameters import FittedConfig
from kolosal.engines.worker.backend import Backend, BackendError
from kolosal.engines.worker.frame_writer import FrameWriter
from kolosal.engines.worker.grammars.limits import MATCH_STACK_BYTES
from kolosal.engines.worker.pipes import claim_pipes, end_with_the_daemon, fatal, read_hello
from kolosal.engines.worker.process_limits import limit_this_process
from kolosal.engines.worker.threads import EngineThread

ModelReader: TypeAlias = Callable[[FittedConfig, Callable[[float], None]], Callable[[], Backend]]
"""Reads a model, and reports how much of it is there, from 0 to 1. What it returns makes the backend, while no other thread of
this process does anything (`llamacpp/page_release.py`). Both raise `BackendError`."""


def main(read_model: ModelReader, prepare: Callable[[], None] = lambda: None) -> int:
    """Load one model and serve it until the daemon says stop or is gone; returns the exit status.

    `prepare` is called before that is known: a spare worker waits for its model.
    """
    limit_this_process()
    frames_in, frames_out = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which drains first
    writer = FrameWriter(frames_out)
    prepare()
    try:
        hello = read_hello(frames_in)
        if hello is None:
            os._exit(3)  # whatever is still imported
        watch = end_with_the_daemon(frames_in)
        engine = EngineThread(MATCH_STACK_BYTES)
        read = partial(read_model, hello.config, lambda fraction: writer.write(Progress(fraction)))
        reading = engine.begin(read)
        from kolosal.engines.worker.serving import serve_model  # noqa: PLC0415 - while the model is read

        return serve_model(reading, engine, hello, writer, frames_in, watch)
    except FrameError as exc:
        return fatal(writer, f"The daemon broke the protocol: {exc}", status=2)


def _import_llama_cpp() -> None:
    """What the file is read with first, what comes after that next."""
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # whoever needs it hears of it
        for name in ("llamacpp.weights", "llamacpp.backend", "serving"):
            importlib.import_module(f"kolosal.engines.worker.{name}")


_imports = threading.Thread(target=_import_llama_cpp, name="imports", daemon=True)


def _read_with_llama_cpp(config: FittedConfig, on_progress: Callable[[float], None]) -> Callable[[], Backend]:
    """The backend's modules are imported only here, as that may fail, and while llama.cpp reads the file, as that takes long."""
    try:
        from kolosal.engines.worker.llamacpp.weights import load_weights  # noqa: PLC0415

        weights = load_weights(config, on_progress)
        _imports.join()
        from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as exc:
        raise BackendError(f"llama.cpp's library cannot be loaded: {exc}") from exc
    return partial(LlamaCppBackend, config, on_progress, weights)


if __name__ == "__main__":
    sys.exit(main(_read_with_llama_cpp, _imports.start))
