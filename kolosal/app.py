"""The application: routes, error handlers and middleware put together around the services they use.

No globals: two applications can live in one process, as they do in tests. Importing this loads no native code.
"""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.middleware import Middleware

from kolosal.admission import Admission
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.engines.registry import EngineRegistry
from kolosal.http.cors import Cors
from kolosal.http.guard import BodyLimit, RequestGuard
from kolosal.http.handlers import EXCEPTION_HANDLERS
from kolosal.http.request_log import RequestLog
from kolosal.paths import ModelRoots
from kolosal.routes import DIALECTS, all_routes
from kolosal.routes.admin.health import HEALTH_PATHS
from kolosal.routes.common.access import guarded
from kolosal.routes.common.services import Services
from kolosal.routes.openai.responses.store import ResponseStore
from kolosal.routes.websocket.sessions import SessionStore
from kolosal.security.auth import Authenticator
from kolosal.security.hosts import AllowedHosts
from kolosal.security.startup_checks import authenticator_of


def create_app(
    settings: Settings,
    registry: EngineRegistry,
    conversation: ConversationSettings | None = None,
    authenticator: Authenticator | None = None,
) -> Starlette:
    """An ASGI application that serves these engines.

    `conversation` is the package's own unless given; without an authenticator it knows the keys of both settings.
    """
    conversation = conversation or ConversationSettings()
    authenticator = authenticator or authenticator_of(settings, file_key=conversation.api_key)
    app = Starlette(
        routes=guarded(all_routes(), authenticator),
        middleware=_middleware(settings, registry),
        exception_handlers=EXCEPTION_HANDLERS,
    )
    # it would be made of the Host header, and clients drop the body
    app.router.redirect_slashes = False
    app.state.services = Services(
        settings,
        registry,
        ResponseStore(settings.responses, time.monotonic),
        SessionStore(settings.sessions, time.monotonic),
        conversation=conversation,
        admission=Admission(settings.server),
        authenticator=authenticator,
        model_roots=ModelRoots.of(settings.engines.model_roots, settings.models),
    )
    return app


def _middleware(settings: Settings, registry: EngineRegistry) -> list[Middleware]:
    """What surrounds the routes, the outermost first."""
    server = settings.server
    log = Middleware(
        RequestLog,
        access_log=settings.logging.access_log,
        quiet_paths=HEALTH_PATHS,
        dialects=DIALECTS,
        on_end=registry.observer.answered,
    )
    hosts = AllowedHosts.of(server.host, server.allowed_hosts)
    guard = Middleware(RequestGuard, hosts=hosts, origins=server.cors_origins)
    cors = [Middleware(Cors, origins=server.cors_origins)] if server.cors_origins else []
    return [log, guard, *cors, Middleware(BodyLimit, max_bytes=server.max_request_size)]
