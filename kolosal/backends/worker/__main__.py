"""A backend's worker process: `python -m kolosal.backends.worker BACKEND`, where that is a name or `package.module:Class`.

Exit statuses are those of `kolosal.engines.worker`, and so are the frames.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback

from kolosal.backends.interface import BackendFacts, BackendInterfaceBase
from kolosal.backends.registry import find_class
from kolosal.backends.worker.server import BackendServer
from kolosal.chat.formats import detect_thinking_tags, detect_tool_format
from kolosal.engines.ipc.messages import EngineInfo, FrameError, Progress, Ready
from kolosal.engines.parameters import FittedConfig, FlashAttention
from kolosal.engines.worker.frame_writer import FrameWriter
from kolosal.engines.worker.pipes import claim_pipes, end_with_the_daemon, fatal, read_hello
from kolosal.engines.worker.process_limits import limit_this_process
from kolosal.errors import KolosalError

_DEFAULT_N_CTX = 4096
"""Tokens of a request where neither the engine nor the model says."""


def main(backend: str) -> int:
    """Load one backend and serve it until the daemon says stop or is gone; returns the exit status."""
    limit_this_process()
    frames_in, frames_out = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which drains first
    writer = FrameWriter(frames_out)
    try:
        hello = read_hello(frames_in)
        if hello is None:
            return 3
        watch = end_with_the_daemon(frames_in)
        try:
            interface = _made(backend, hello.config)
            loaded = interface.load(lambda fraction: writer.write(Progress(fraction)))
        except MemoryError as exc:
            return fatal(writer, str(exc) or "There is not enough memory", status=1, lacked_memory=True)
        except KolosalError as exc:
            return fatal(writer, exc.message, status=1)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is why the model is not loaded
            traceback.print_exc(file=sys.stderr)
            return fatal(writer, f"{type(exc).__name__}: {exc}", status=1)
        info = _info(loaded, interface.supports, hello.config)
        writer.write(Ready(info))
        watch.join()  # until the first frame: a reader beside it could lose what it peeked
        asyncio.run(BackendServer(interface, info, writer.write).serve(frames_in))
        interface.close()
    except FrameError as exc:
        return fatal(writer, f"The daemon broke the protocol: {exc}", status=2)
    return 0


def _made(backend: str, config: FittedConfig) -> BackendInterfaceBase:
    cls = find_class(backend)
    if not issubclass(cls, BackendInterfaceBase):
        raise TypeError(f"{cls.__module__}:{cls.__qualname__} is no BackendInterfaceBase")
    return cls(config)


def _info(loaded: BackendFacts, supports: frozenset[str], config: FittedConfig) -> EngineInfo:
    """What the daemon is told of the model. What only llama.cpp has is 0, off or none."""
    parameters = config.parameters
    n_ctx = parameters.n_ctx or loaded.n_ctx_train or _DEFAULT_N_CTX
    template = parameters.chat_template or loaded.chat_template
    return EngineInfo(
        description=loaded.description or config.backend,
        architecture=loaded.architecture,
        n_params=loaded.n_params,
        size_bytes=loaded.size_bytes,
        n_vocab=loaded.n_vocab,
        n_ctx_train=loaded.n_ctx_train,
        n_ctx=n_ctx,
        kv_pool_tokens=n_ctx * parameters.n_parallel,
        n_parallel=parameters.n_parallel,
        n_batch=parameters.n_batch,
        n_ubatch=parameters.n_ubatch,
        n_threads=parameters.n_threads or 1,
        n_threads_batch=parameters.n_threads_batch or parameters.n_threads or 1,
        n_gpu_layers=0,
        flash_attn=FlashAttention.OFF.value,
        chat_template="configured"
        if parameters.chat_template
        else "model"
        if loaded.chat_template
        else "chatml",
        prompt_cache="prefix" if "cache_scope" in supports else "none",
        tool_format=detect_tool_format(template),
        thinking_tags=detect_thinking_tags(template),
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
