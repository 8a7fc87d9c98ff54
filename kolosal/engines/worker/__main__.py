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
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kolosal.engines.ipc.messages import FrameError, Progress, Ready, SavedFolder
from kolosal.engines.parameters import FittedConfig, FittedParameters
from kolosal.engines.worker.backend import Backend, BackendError, OutOfMemory
from kolosal.engines.worker.frame_writer import FrameWriter
from kolosal.engines.worker.grammars.limits import MATCH_STACK_BYTES
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.pipes import STOP_TIMEOUT_S, claim_pipes, end_with_the_daemon, fatal, read_hello
from kolosal.engines.worker.preprocessor import Preprocessor
from kolosal.engines.worker.process_limits import limit_this_process
from kolosal.engines.worker.schedule.saved_sequences import SavedSequences
from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.engines.worker.threads import EngineThread

if TYPE_CHECKING:
    from kolosal.engines.worker.file_cache import FileCache

BackendFactory: TypeAlias = Callable[[FittedConfig, Callable[[float], None]], Backend]
"""Loads a model, and reports how much of it is there, from 0 to 1. Raises `BackendError`."""


def main(make_backend: BackendFactory) -> int:
    """Load one model and serve it until the daemon says stop or is gone; returns the exit status."""
    limit_this_process()
    frames_in, frames_out = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which drains first
    writer = FrameWriter(frames_out)
    try:
        hello = read_hello(frames_in)
        watch = end_with_the_daemon(frames_in)
        engine = EngineThread(MATCH_STACK_BYTES)
        with contextlib.closing(TemplateRenderer()) as renderer:
            try:
                renderer.start()  # ready before the model is
                load = partial(make_backend, hello.config, lambda fraction: writer.write(Progress(fraction)))
                backend = engine.begin(load).result()
                parameters = hello.config.parameters
                template = ChatTemplate(
                    backend,
                    parameters.chat_template,
                    renderer,
                    enable_thinking=parameters.enable_thinking,
                    keep_client_metadata=parameters.keep_client_metadata,
                )
            except (BackendError, TemplateFailed, OSError) as exc:
                return fatal(writer, str(exc), status=1, lacked_memory=isinstance(exc, OutOfMemory))
            if template.origin == "chatml":
                renderer.close()  # a model without a template may never be chatted with
            writer.write(Ready(backend.info))
            watch.join()  # until the first frame: a reader beside it could lose what it peeked
            return _serve(engine, backend, template, writer, frames_in, parameters, hello.saved_folder)
    except FrameError as exc:
        return fatal(writer, f"The daemon broke the protocol: {exc}", status=2)


def _serve(
    engine: EngineThread,
    backend: Backend,
    template: ChatTemplate,
    writer: FrameWriter,
    frames_in: io.BufferedReader,
    parameters: FittedParameters,
    saved_folder: SavedFolder | None,
) -> int:
    loop = EngineLoop(
        backend,
        writer.write,
        target_step_s=parameters.target_step_ms / 1000,
        saved_bytes=parameters.cache_host_bytes,
        open_files=None if saved_folder is None else _opener(saved_folder, backend),
    )
    engine.begin(partial(_run_engine, loop, writer))
    preprocessor = Preprocessor(backend, template, loop, writer.write, speculation=parameters.speculation)
    if not preprocessor.serve(frames_in):
        os._exit(3)  # nobody is left to read; also ends a native call that is running
    loop.stop()
    closed = preprocessor.close(STOP_TIMEOUT_S)
    if not engine.close(STOP_TIMEOUT_S) or not closed:
        os._exit(0)
    backend.close()
    return 0


def _opener(
    folder: SavedFolder, backend: Backend
) -> Callable[[SavedSequences, Callable[[partial[None]], None]], FileCache] | None:
    """Opens the files of conversations with this model; None where it cannot be said which those are."""
    from kolosal.engines.worker.file_cache import FileCache  # noqa: PLC0415 - as below
    from kolosal.engines.worker.saved_files import SavedFiles  # noqa: PLC0415 - only where it is turned on

    try:
        return partial(FileCache, SavedFiles(Path(folder.path), folder.max_bytes, backend.state_key()))
    except OSError:
        traceback.print_exc()
        return None


def _run_engine(loop: EngineLoop, writer: FrameWriter) -> None:
    try:
        loop.run()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the engine cannot go on
        traceback.print_exc()
        os._exit(fatal(writer, f"{type(exc).__name__}: {exc}", status=1))


def _load_with_llama_cpp(config: FittedConfig, on_progress: Callable[[float], None]) -> Backend:
    """The backend, whose module is imported only here: that takes most of the start-up time, and may fail."""
    try:
        from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as exc:
        raise BackendError(f"llama.cpp's library cannot be loaded: {exc}") from exc
    return LlamaCppBackend(config, on_progress)


if __name__ == "__main__":
    sys.exit(main(_load_with_llama_cpp))
