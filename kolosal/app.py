"""The application: routes, error handlers and middleware put together around the services they use.

No globals: two applications can live in one process, as they do in tests. Importing this loads no native code.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware

from kolosal.config.settings import Settings
from kolosal.engines.registry import EngineRegistry
from kolosal.http.handlers import EXCEPTION_HANDLERS
from kolosal.http.middleware import BodyLimit, RequestLog
from kolosal.routes import all_routes
from kolosal.routes.services import Services


def create_app(settings: Settings, registry: EngineRegistry) -> Starlette:
    """An ASGI application that serves these engines."""
    app = Starlette(
        routes=all_routes(),
        middleware=[
            Middleware(RequestLog, access_log=settings.access_log),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = (
        False  # a redirect would be made of the Host header, and clients drop the body
    )
    app.state.services = Services(registry)
    return app
