"""The application: routes, error handlers and middleware put together around the services they use.

No globals: two applications can live in one process, as they do in tests. Importing this loads no native code.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware

from kolosal.admission import Admission
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.downloads.arrival import Arrival
from kolosal.downloads.jobs import Downloads
from kolosal.downloads.process import FetcherCommand
from kolosal.engines.memory.sizing import FileCheck, any_file
from kolosal.engines.registry import EngineRegistry
from kolosal.http.cors import Cors
from kolosal.http.guard import BodyLimit, RequestGuard
from kolosal.http.handlers import EXCEPTION_HANDLERS
from kolosal.http.request_log import RequestLog
from kolosal.http.target import RequestTarget
from kolosal.models.autoload import Autoload
from kolosal.models.library import Library
from kolosal.models.settings import ModelSettings
from kolosal.models.settings_file import SettingsFile, put_model
from kolosal.paths import ModelRoots, Roots
from kolosal.routes import DIALECTS, all_routes
from kolosal.routes.admin.health import HEALTH_PATHS
from kolosal.routes.assistants.live import LiveRuns
from kolosal.routes.common.access import guarded
from kolosal.routes.common.model_settings import change_models
from kolosal.routes.common.services import Services
from kolosal.routes.console.pages import QUIET_PATHS
from kolosal.routes.documents.upload import upload_limits
from kolosal.routes.ollama.create import BLOB_PATHS, MAX_BLOB_BYTES
from kolosal.routes.openai.responses.kept import KeptResponses
from kolosal.routes.openai.responses.sealed import ThoughtSeal
from kolosal.routes.websocket.kept_sessions import KeptSessions
from kolosal.routes.websocket.sessions import SessionStore
from kolosal.security.auth import Authenticator
from kolosal.security.hosts import AllowedHosts, AllowedOrigins
from kolosal.security.quotas import Quotas, limits_of
from kolosal.security.startup_checks import authenticator_of
from kolosal.store.store import ObjectStore


def create_app(
    settings: Settings,
    registry: EngineRegistry,
    conversation: ConversationSettings | None = None,
    authenticator: Authenticator | None = None,
    file_checks: Callable[[], FileCheck] = lambda: any_file,
    library: Library | None = None,
    store: ObjectStore | None = None,
    model_settings: SettingsFile | None = None,
    downloads: Downloads | None = None,
) -> Starlette:
    """An ASGI application that serves these engines.

    `conversation` is the package's own unless given; without an authenticator it knows the keys of both settings.
    """
    conversation = conversation or ConversationSettings()
    library, store = library or Library(), store or ObjectStore(settings.store)
    authenticator = authenticator or authenticator_of(settings, file_key=conversation.api_key)
    activity = settings.activity
    registry.observer.activity.set_limits(requests=activity.requests, capture_bytes=activity.capture_bytes)
    app = Starlette(
        routes=guarded(all_routes(), authenticator, registry.observer.activity),
        middleware=_middleware(settings, registry),
        exception_handlers=EXCEPTION_HANDLERS,
    )
    # it would be made of the Host header, and clients drop the body
    app.router.redirect_slashes = False
    quotas = Quotas(limits_of(settings.auth), time.time)
    registry.observer.on_spent = quotas.spent
    if model_settings is not None:
        registry.known = model_settings.said
    app.state.services = services = Services(
        settings,
        registry,
        KeptResponses(store, settings.responses),
        ThoughtSeal(),
        SessionStore(settings.sessions, time.monotonic),
        KeptSessions(store, settings.sessions),
        conversation=conversation,
        admission=Admission(settings.server),
        authenticator=authenticator,
        quotas=quotas,
        model_roots=ModelRoots.of(settings.engines.model_roots, settings.models, library.folders),
        store=store,
        runs=LiveRuns(),
        file_checks=file_checks,
        library=library,
        model_settings=model_settings or SettingsFile(),
        downloads=downloads or Downloads(settings.downloads, None, FetcherCommand()),
    )

    def roots() -> Roots:
        return services.model_roots.allowed(authenticator.needed)

    registry.unloaded_models = Autoload(library, lambda: services.settings.library.autoload, roots)

    async def remember(name: str, said: ModelSettings) -> None:
        if name not in services.model_settings.said.settings.models:  # what somebody wrote holds
            await change_models(services, put_model(name, said))

    services.downloads.on_arrival = Arrival(registry, library, roots, remember)
    library.on_change = lambda: registry.observer.events.publish(
        "library.changed", models=len(library.models)
    )
    return app


def _middleware(settings: Settings, registry: EngineRegistry) -> list[Middleware]:
    """What surrounds the routes, the outermost first."""
    server = settings.server
    log = Middleware(
        RequestLog,
        access_log=settings.logging.access_log,
        quiet_paths=frozenset((*HEALTH_PATHS, *QUIET_PATHS)),
        dialects=DIALECTS,
        observer=registry.observer,
    )
    hosts = AllowedHosts.of(server.host, server.allowed_hosts, local_apps=server.allow_local_apps)
    origins = AllowedOrigins.of(server.cors_origins, local_apps=server.allow_local_apps)
    guard = Middleware(RequestGuard, hosts=hosts, origins=origins)
    cors = [Middleware(Cors, origins=origins)] if origins.any else []
    return [
        Middleware(RequestTarget),
        log,
        guard,
        *cors,
        Middleware(
            BodyLimit,
            max_bytes=server.max_request_size,
            of_paths={**upload_limits(settings.documents), BLOB_PATHS: MAX_BLOB_BYTES},
        ),
    ]
