"""The application: routes, error handlers and middleware put together around the services they use.

No globals: two applications can live in one process, as they do in tests. Importing this loads no native code.
"""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.middleware import Middleware

from kolosal.admission import Admission, AdmissionLimits
from kolosal.config.settings import Settings
from kolosal.conversation.settings import ConversationSettings
from kolosal.engines.registry import EngineRegistry
from kolosal.http.cors import Cors
from kolosal.http.guard import RequestGuard
from kolosal.http.handlers import EXCEPTION_HANDLERS
from kolosal.http.middleware import BodyLimit, RequestLog
from kolosal.paths import ModelRoots
from kolosal.routes import DIALECTS, all_routes
from kolosal.routes.common.access import guarded
from kolosal.routes.common.services import Services
from kolosal.routes.openai.responses.store import ResponseStore, StoreLimits
from kolosal.routes.websocket.sessions import SessionLimits, SessionStore
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
    hosts = AllowedHosts.of(settings.host, settings.allowed_hosts)
    app = Starlette(
        routes=guarded(all_routes(), authenticator),
        middleware=[
            Middleware(
                RequestLog,
                access_log=settings.access_log,
                dialects=DIALECTS,
                on_end=registry.observer.answered,
            ),
            Middleware(RequestGuard, hosts=hosts, origins=settings.cors_origins),
            *([Middleware(Cors, origins=settings.cors_origins)] if settings.cors_origins else []),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = (
        False  # a redirect would be made of the Host header, and clients drop the body
    )
    limits = StoreLimits(settings.responses_max_count, settings.responses_max_bytes, settings.responses_ttl_s)
    session_limits = SessionLimits(
        max_sessions=settings.sessions_max_count,
        max_connections=settings.sessions_max_connections,
        max_legs=settings.sessions_max_legs,
        messages_per_s=settings.sessions_messages_per_s,
        ttl_s=settings.sessions_ttl_s,
    )
    admission = AdmissionLimits(
        settings.max_requests, settings.max_requests_per_key, settings.queue_timeout_s
    )
    app.state.services = Services(
        registry,
        ResponseStore(limits, time.monotonic),
        SessionStore(session_limits, time.monotonic),
        max_iterations=settings.rpc_max_iterations,
        conversation=conversation,
        admission=Admission(admission),
        authenticator=authenticator,
        model_roots=ModelRoots.of(settings.model_roots, settings.models),
        share_prefix_across_keys=settings.share_prefix_across_keys,
    )
    return app
