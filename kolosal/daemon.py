"""The daemon: one process from the socket to the last worker's end.

Owns the order of things. Start: bind, serve, then load models, so that health answers while they load. Stop: refuse new
requests with a 503, let running ones finish, end the workers, then close the socket: a client that comes meanwhile learns
why, and health answers to the end. Reads no configuration and no environment of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kolosal import updates
from kolosal.app import create_app
from kolosal.backends.registry import registered as registered_backends
from kolosal.backends.sizes import BackendSizes
from kolosal.config.load import state_folder
from kolosal.config.models import ModelEntry
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.downloads.download_file import DownloadFile
from kolosal.downloads.jobs import Downloads
from kolosal.downloads.process import FetcherCommand, fetcher_environment
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.ipc.system import end_workers_with_this_process
from kolosal.engines.memory.load_scheduler import LoadScheduler
from kolosal.engines.memory.machine import read_memory
from kolosal.engines.memory.sizing import FileCheck, FileSizes, Sizes
from kolosal.engines.parameters import EngineConfig, Placement, other_than_default
from kolosal.engines.persist import EngineFile
from kolosal.engines.registry import EngineHost, EngineRegistry
from kolosal.errors import Conflict, InvalidRequest, KolosalError, LoadFailed, ModelFileError
from kolosal.files.in_thread import in_thread
from kolosal.greeting import greeting
from kolosal.hangup import Hangup, hangups
from kolosal.http.server import HttpServer, listen
from kolosal.log import log_lines_kept
from kolosal.models.cache import FILE_NAME as CACHE_NAME
from kolosal.models.library import Library
from kolosal.models.places import model_folders, stores_of
from kolosal.models.settings_file import SettingsFile, read_models_file
from kolosal.paths import config_of_entry, confined
from kolosal.reload import Reloader
from kolosal.routes.common.services import Services
from kolosal.security.startup_checks import DaemonSecurity, check_security
from kolosal.store.expiry import drop_expired_regularly
from kolosal.store.store import ObjectStore
from kolosal.supervisor import ProcessSupervisor, Supervisor

if TYPE_CHECKING:
    from kolosal.cluster.engines import ClusterEngines
    from kolosal.observe.otel import Traces

log = logging.getLogger(__name__)

_SAVED_FOLDER = "kv-cache"
"""Where workers keep conversations, in the state folder."""


def run(
    settings: Settings,
    environ: Mapping[str, str],
    worker_argv: tuple[str, ...] | None = None,
    conversation: ConversationSettings | None = None,
    supervisor: Supervisor | None = None,
    reread: Callable[[], Settings] | None = None,
    models_file: Path | None = None,
) -> int:
    """Serve until told to stop; the exit status. Blocks, on the main thread unless there is a `supervisor`.

    `environ` is what the workers' environment is chosen from; `worker_argv` replaces the worker program in tests.
    Without a `supervisor` signals stop it. `reread` gives the settings as they are later; `models_file` says more of models.

    Raises:
        ConfigError: keys, TLS files or `models_file` cannot be used, or other machines could use the daemon without a key.
        ClusterError: the cluster of the settings cannot be joined.
    """
    model_settings = SettingsFile(models_file, read_models_file(models_file))
    security = check_security(settings, environ, None if conversation is None else conversation.api_key)
    end_workers_with_this_process()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(
            serve(settings, security, environ, worker_argv, conversation, supervisor, reread, model_settings)
        )


async def serve(
    settings: Settings,
    security: DaemonSecurity,
    environ: Mapping[str, str],
    worker_argv: tuple[str, ...] | None = None,
    conversation: ConversationSettings | None = None,
    supervisor: Supervisor | None = None,
    reread: Callable[[], Settings] | None = None,
    model_settings: SettingsFile | None = None,
) -> int:
    """As `run`, on a running loop."""
    supervisor = supervisor or ProcessSupervisor(environ)
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
    folder = state_folder(settings, environ)
    state = folder if settings.engines.keep else None
    trusted: set[str] = set()

    def file_checks() -> FileCheck:  # once there are services; their roots may change
        return confined(services.model_roots.allowed(security.authenticator.needed), trusted)

    sizes = BackendSizes(
        FileSizes(partial(read_memory, environ.get("CUDA_VISIBLE_DEVICES")), file_checks), file_checks
    )
    registry = _registry(settings, environ, worker_argv, folder, sizes)
    cluster = await _join_cluster(settings, registry, sizes)
    if traces is not None:
        registry.observer.sinks.append(traces.add)

    def on_listening() -> None:
        url = settings.server.url_of(host, listener.getsockname()[1])
        screen = "" if registry.list() else greeting(settings, url, state, model_folders(settings, environ))
        _say(sys.stdout, f"Kolosal is listening on {url}\n{screen}")
        supervisor.ready(url)

    library = Library(stores_of(settings, environ), None if state is None else state / CACHE_NAME)
    library.uses = partial(_last_uses, registry)
    store = ObjectStore(settings.store, folder)
    downloads = _downloads(settings, environ, registry, state)
    app = create_app(
        settings,
        registry,
        conversation,
        security.authenticator,
        file_checks,
        library,
        store,
        model_settings,
        downloads,
    )
    services: Services = app.state.services
    services.cluster = cluster
    store.on_opened = services.indexer.wake  # what a daemon before this one did not end
    if reread is not None:
        services.reload = Reloader(services, reread, trusted).reload
    server = HttpServer(app, settings, security.tls, on_listening)
    with log_lines_kept(registry.observer.log), supervisor.stop_requests() as stop, hangups() as hung_up:
        engines = await _add_models(registry, settings.models)
        for engine in registry.list():
            trusted |= {engine.config.model_path, engine.config.parameters.draft_model_path or ""}
        await _restore(registry)
        engines = [*_to_go_on_with(registry, cluster), *engines]
        await downloads.restore()
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve")
        others = (
            asyncio.create_task(_load(engines), name="load models"),
            asyncio.create_task(registry.reap_idle(), name="unload idle engines"),
            asyncio.create_task(services.take_history(), name="take history"),
            asyncio.create_task(library.refresh(), name="look for models"),
            asyncio.create_task(drop_expired_regularly(store), name="delete what has expired"),
            asyncio.create_task(_reload(services, hung_up, stop), name="reload"),
            asyncio.create_task(supervisor.heartbeat(), name="heartbeat"),
            *_watch_updates(settings.server.update_url, services),
            stopping := asyncio.create_task(stop.wait(), name="wait to be told to stop"),
        )
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        drain_s = services.settings.server.shutdown_drain_s
        supervisor.stopping(drain_s)
        log.info("daemon.stopping", extra={"drain_s": drain_s})
        for task in others:
            task.cancel()
        await downloads.close()
        await library.close()
        is_saved = await registry.close(drain_s=drain_s)
        registry.observer.close()
        server.should_exit = True
        await asyncio.wait((serving, *others))
        await services.runs.close()
        await services.responses.close()
        await services.indexer.close()
        await store.close()
    if traces is not None:
        with contextlib.suppress(OSError):
            await in_thread(traces.close)
    serving.result()
    log.info("daemon.stopped")
    if not is_saved and registry.engine_file is not None:
        _say(sys.stderr, f"{registry.engine_file.problem}\n")
        return 1
    return 0


def _registry(
    settings: Settings,
    environ: Mapping[str, str],
    worker_argv: tuple[str, ...] | None,
    folder: Path | None,
    sizes: Sizes,
) -> EngineRegistry:
    state = folder if settings.engines.keep else None
    command = WorkerCommand(
        environment=worker_environment(environ),
        settings=settings.engines,
        saved_folder=None if folder is None else folder / _SAVED_FOLDER,
        backends=registered_backends,
    )
    return EngineRegistry(
        command if worker_argv is None else replace(command, argv=worker_argv),
        default_engine=settings.server.default_engine,
        sizes=sizes,
        engine_file=None if state is None else EngineFile(state),
    )


async def _join_cluster(settings: Settings, registry: EngineRegistry, sizes: Sizes) -> ClusterEngines | None:
    """The cluster of the settings, which the registry may place engines in from now on.

    Raises:
        ClusterError: it cannot be joined.
    """
    if settings.cluster.address is None:
        return None
    from kolosal.cluster.engines import ClusterEngines, ClusterSizes  # noqa: PLC0415 - for who has a cluster
    from kolosal.cluster.ray_cluster import RayCluster  # noqa: PLC0415

    joined = await RayCluster.join(settings.cluster.address)
    there = ClusterSizes(joined, sizes)
    engines = ClusterEngines(joined, there, registry.observer)
    loads = LoadScheduler(settings.engines.model_copy(update={"memory_check": False}), there)
    registry.hosts[Placement.RAY] = EngineHost(engines, loads)
    return engines


def _to_go_on_with(registry: EngineRegistry, cluster: ClusterEngines | None) -> list[Engine]:
    """The engines whose workers a daemon before this one left in the cluster."""
    left = () if cluster is None else cluster.left_over
    return [
        each for each in registry.list() if each.engine_id in left and each.config.placement is Placement.RAY
    ]


def _downloads(
    settings: Settings, environ: Mapping[str, str], registry: EngineRegistry, state: Path | None
) -> Downloads:
    return Downloads(
        settings.downloads,
        next(iter(model_folders(settings, environ)), None),
        FetcherCommand(fetcher_environment(environ)),
        kept_in=None if state is None else DownloadFile(state),
        events=registry.observer.events,
    )


def _last_uses(registry: EngineRegistry) -> dict[str, float]:
    """When model files were last used, by path."""
    return {
        engine.config.model_path: engine.last_used_at
        for engine in registry.list()
        if engine.last_used_at is not None
    }


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


async def _restore(registry: EngineRegistry) -> None:
    """Add the engines that were there before the last stop, unloaded. Those of the configuration win."""
    if registry.engine_file is None:
        return
    for stored in await registry.engine_file.restore():
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
        return await config_of_entry(entry)
    except (InvalidRequest, ModelFileError, LoadFailed) as exc:
        _log_failure("model.not_found", entry.id, exc)
        given = other_than_default(entry.parameters)
        return EngineConfig(
            entry.id, entry.path, entry.parameters, entry.backend, entry.backend_options, given
        )


def _log_failure(event: str, engine_id: str, error: KolosalError) -> None:
    log.error(event, extra={"engine_id": engine_id, "reason": error.message})


def _watch_updates(url: str | None, services: Services) -> list[asyncio.Task[None]]:
    def found(version: str | None) -> None:
        services.update = version

    return [] if url is None else [asyncio.create_task(updates.watch(url, found), name="look for updates")]


async def _reload(services: Services, hung_up: Hangup, stop: asyncio.Event) -> None:
    """Read the configuration again at each SIGHUP, or stop where it says that the terminal is gone. Ends with its task."""
    while True:
        await hung_up.wait()
        if hung_up.lost_terminal:
            hung_up.leave_terminal()
            stop.set()
        elif services.reload is not None:
            with contextlib.suppress(KolosalError):  # which is logged
                await services.reload()


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
