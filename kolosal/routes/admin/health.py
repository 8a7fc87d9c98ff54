"""Health: is the daemon up, and what does it hold? Reading it touches no engine."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kolosal import __version__
from kolosal.http.responses import JsonResponse
from kolosal.routes.admin.answer_types import About, Health
from kolosal.routes.admin.engines import is_loaded, status_word
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import services_of

_SERVER_NAME = "Kolosal Inference Server"

_OLLAMA_GREETING = "Ollama is running"
"""The whole text, by which clients know that there is a server."""

_OLLAMA_AGENT = "ollama"
"""How the user agents of the official clients begin: `ollama/…`, `ollama-python/…`, `ollama-js/…`."""


def routes() -> list[Route]:
    """The paths of this module."""
    return [
        Route("/", index),
        Route("/health", health),
        Route("/v1/health", health),
        Route("/status", health),
    ]


@Operation(
    group=Group.DAEMON, scope=Access.OPEN, answer="Name, version and the main paths.", answer_type=About
)
async def index(request: Request) -> Response:
    """For whoever opens the address in a browser. Clients of Ollama, and who asks for plain text, get `Ollama is running`."""
    if _wants_greeting(request):
        return PlainTextResponse(_OLLAMA_GREETING)
    return JsonResponse(
        {
            "name": _SERVER_NAME,
            "version": __version__,
            "status": "running",
            "api": ["/v1/chat/completions", "/v1/completions", "/v1/models", "/engines", "/health"],
            "docs": "/docs",
        }
    )


@Operation(
    group=Group.DAEMON,
    scope=Access.OPEN,
    answer="Uptime, counts and the status of each engine.",
    answer_type=Health,
)
async def health(request: Request) -> Response:
    """Counts, and each engine's status."""
    services = services_of(request)
    engines = services.registry.list()
    loaded = sum(map(is_loaded, engines))
    return JsonResponse(
        {
            "status": "healthy",
            "timestamp": time.time_ns() // 1_000_000,
            "server": {
                "name": _SERVER_NAME,
                "version": __version__,
                "uptime": round(time.monotonic() - services.started, 3),
            },
            "node_manager": {
                "total_engines": len(engines),
                "loaded_engines": loaded,
                "unloaded_engines": len(engines) - loaded,
                "autoscaling": "enabled",
            },
            "engines": [{"engine_id": e.engine_id, "status": status_word(e)} for e in engines],
        }
    )


def _wants_greeting(request: Request) -> bool:
    """Whether a request is an Ollama client's, or asks for plain text: then `GET /` is answered as by Ollama."""
    agent, accepted = request.headers.get("user-agent", ""), request.headers.get("accept", "")
    return agent.lower().startswith(_OLLAMA_AGENT) or accepted.strip().lower().startswith("text/plain")
