"""The daemon: one process from the socket to the last worker's end.

Owns the order of things. Start: bind, serve, then load models, so that health answers while they load. Stop: refuse new
requests with a 503, let running ones finish, end the workers, then close the socket: a client that comes meanwhile learns
why, and health answers to the end. Reads no configuration and no environment of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kolosal.app import create_app
from kolosal.config.load import state_folder
from kolosal.config.models import ModelEntry
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.ipc.system import end_workers_with_this_process
from kolosal.engines.memory.machine import read_memory
from kolosal.engines.memory.sizing import FileSizes
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.persist import EngineFileWriter, load_stored
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import Conflict, KolosalError, ModelFileError
from kolosal.http.server import HttpServer, listen
from kolosal.paths import Anywhere, engine_config
from kolosal.sd_notify import notify
from kolosal.security.startup_checks import DaemonSecurity, check_security

if TYPE_CHECKING:
    from kolosal.observe.otel import Traces

log = logging.getLogger(__name__)


def run(
    settings: Settings,
    environ: Mapping[str, str],
    worker_argv: tuple[str, ...] | None = None,
    conversation: ConversationSettings | None = None,
) -> int:
    """Serve until told to stop; the exit status. Blocks, on the main thread.

    `environ` is what the workers' environment is chosen from; `worker_argv` replaces the worker program in tests.

    Raises:
        ConfigError: keys or TLS files cannot be used, or other machines could use the daemon without a key.
    """
    security = check_security(settings, environ, None if conversation is None else conversation.api_key)
    end_workers_with_this_process()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings, security, environ, worker_argv, conversation))


async def serve(
    settings: Settings,
    security: DaemonSecurity,
    environ: Mapping[str, str],
    worker_argv: tuple[str, ...] | None = None,
    conversation: ConversationSettings | None = None,
) -> int:
    """As `run`, on a running loop."""
    host, port = settings.server.host, settings.server.port
    try:
        traces = _traces(settings.logging.traces_url)
        listener = listen(host, port)
    except ImportError:
        _say(sys.stderr, "logging.traces_url needs the extra 'otel': pip install 'kolosal[otel]'\n")
        return 1
    except OSError as exc:
        _say(sys.stderr, f"Cannot listen on {settings.server.url_of(host, port)}: {exc.strerror or exc}\n")
        return 1
    state = state_folder(settings, environ) if settings.engines.keep else None
    registry = _registry(settings, environ, worker_argv, state)
    if traces is not None:
        registry.observer.sinks.append(traces.add)

    def on_listening() -> None:
        url = settings.server.url_of(host, listener.getsockname()[1])
        _say(sys.stdout, f"Kolosal is listening on {url}\n")
        notify(environ, "READY=1")

    app = create_app(settings, registry, conversation, security.authenticator)
    server = HttpServer(app, settings, security.tls, on_listening)
    with _stop_signals() as stop:
        engines = await _add_models(registry, settings.models)
        if state is not None:
            await _restore(registry, state)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve")
        others = (
            asyncio.create_task(_load(engines), name="load models"),
            asyncio.create_task(registry.load_scheduler.reap_idle(), name="unload idle engines"),
            stopping := asyncio.create_task(stop.wait(), name="wait for a signal"),
        )
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        notify(environ, "STOPPING=1")
        log.info("daemon.stopping", extra={"drain_s": settings.server.shutdown_drain_s})
        for task in others:
            task.cancel()
        await registry.close(drain_s=settings.server.shutdown_drain_s)
        registry.observer.events.close()
        server.should_exit = True
        await asyncio.wait((serving, *others))
    if traces is not None:
        await asyncio.to_thread(traces.close)
    serving.result()
    log.info("daemon.stopped")
    return 0


def _registry(
    settings: Settings, environ: Mapping[str, str], worker_argv: tuple[str, ...] | None, state: Path | None
) -> EngineRegistry:
    command = WorkerCommand(environment=worker_environment(environ), settings=settings.engines)
    return EngineRegistry(
        command if worker_argv is None else replace(command, argv=worker_argv),
        default_engine=settings.server.default_engine,
        sizes=FileSizes(partial(read_memory, environ.get("CUDA_VISIBLE_DEVICES"))),
        engine_file=None if state is None else EngineFileWriter(state),
    )


def _say(stream: TextIO | None, text: str) -> None:
    """Write at once. Programs that Windows starts without a console (pythonw) have no streams."""
    if stream is not None:
        stream.write(text)
        stream.flush()


def _traces(url: str | None) -> Traces | None:
    """Where traces of generations go, if anywhere.

    Raises:
        ImportError: the extra is not installed.
    """
    if url is None:
        return None
    from kolosal.observe.otel import traces_to  # noqa: PLC0415 - an extra, and slow to import

    return traces_to(url)


async def _add_models(registry: EngineRegistry, entries: tuple[ModelEntry, ...]) -> list[Engine]:
    """Register all configured engines, so that the first request finds them; return those to load at once."""
    engines = []
    for entry in entries:
        config = await _configured(entry)
        try:
            engine = await registry.add(config, load=False, rules=entry.rules)
        except KolosalError as exc:  # two entries of one name
            _log_failure("model.not_added", entry.id, exc)
        else:
            if entry.load_immediately:
                engines.append(engine)
    return engines


async def _restore(registry: EngineRegistry, folder: Path) -> None:
    """Add the engines that were there before the last stop, unloaded. Those of the configuration win."""
    for stored in await asyncio.to_thread(load_stored, folder):
        try:
            await registry.add(stored.config, load=False, rules=stored.rules, keep=True)
        except Conflict:
            log.info("model.configured", extra={"engine_id": stored.config.engine_id})


async def _load(engines: list[Engine]) -> None:
    """Load engines one after another. One that fails stays registered, and the next request for it tries again."""
    for engine in engines:
        try:
            await engine.ensure_ready()
        except KolosalError as exc:
            _log_failure("model.not_loaded", engine.engine_id, exc)


async def _configured(entry: ModelEntry) -> EngineConfig:
    """A configured engine, also where its file is missing: the disk it is on may come later."""
    try:
        return await asyncio.to_thread(
            engine_config, entry.id, entry.path, entry.parameters, roots=Anywhere.AT_ALL
        )
    except ModelFileError as exc:
        _log_failure("model.not_found", entry.id, exc)
        return EngineConfig(entry.id, entry.path, entry.parameters)


def _log_failure(event: str, engine_id: str, error: KolosalError) -> None:
    log.error(event, extra={"engine_id": engine_id, "reason": error.message})


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first signal sets; the second ends the process at once; workers follow when their pipes close.

    `signal.signal` and not the loop's own handlers, which Windows does not have.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    asked = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            os.write(2, b"Stopped at once by a second signal\n")  # a signal may interrupt a buffered write
            os._exit(1)
        asked = True
        loop.call_soon_threadsafe(stop.set)

    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed; asyncio's own elsewhere, on Windows as `loop_windows` has it."""
    if sys.platform == "win32":
        from kolosal.loop_windows import new_event_loop  # noqa: PLC0415 - Windows only

        return new_event_loop
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
