"""Serving: what a worker does with a model, from the moment that it begins to load.

Its imports are those that the load does not wait for: they happen beside it.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kolosal.engines.ipc.messages import Hello, Ready, SavedFolder
from kolosal.engines.parameters import FittedParameters
from kolosal.engines.worker.backend import Backend, BackendError, OutOfMemory
from kolosal.engines.worker.frame_writer import FrameWriter
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.pipes import STOP_TIMEOUT_S, fatal
from kolosal.engines.worker.preprocessor import Preprocessor
from kolosal.engines.worker.schedule.saved_sequences import SavedSequences
from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.engines.worker.threads import EngineThread

if TYPE_CHECKING:
    from kolosal.engines.worker.file_cache import FileCache


def serve_model(
    reading: Future[Callable[[], Backend]],
    engine: EngineThread,
    hello: Hello,
    writer: FrameWriter,
    frames_in: io.BufferedReader,
    watch: threading.Thread,
) -> int:
    """Serve a model as soon as it is there, until the daemon says stop; returns the exit status.

    `reading` has what makes the backend; `watch` looks at `frames_in` until the first frame.

    Raises:
        FrameError: the daemon broke the protocol.
    """
    with contextlib.closing(TemplateRenderer()) as renderer:
        parameters = hello.config.parameters
        try:
            renderer.start()  # ready before the model is
            backend = engine.begin(reading.result()).result()
            template = ChatTemplate(
                backend,
                parameters.chat_template,
                renderer,
                enable_thinking=parameters.enable_thinking,
                keep_client_metadata=parameters.keep_client_metadata,
            )
        except (BackendError, TemplateFailed, OSError) as exc:
            status = fatal(writer, str(exc), status=1, lacked_memory=isinstance(exc, OutOfMemory))
            if not reading.done():
                os._exit(status)  # llama.cpp is still at it
            return status
        if template.origin == "chatml":
            renderer.close()  # a model without a template may never be chatted with
        writer.write(Ready(backend.info))
        watch.join()  # a reader beside it could lose what it peeked
        return _serve(engine, backend, template, writer, frames_in, parameters, hello.saved_folder)


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
