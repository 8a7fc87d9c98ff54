"""Health: is the daemon up, and what does it hold? Reading it touches no engine."""

from __future__ import annotations

import time
from typing import Literal

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal import __version__
from kolosal.http.responses import JsonResponse
from kolosal.log import log_file_problem
from kolosal.routes.admin.engine_details import EngineStatus, engine_status, is_loaded
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Services, services_of

_SERVER_NAME = "Kolosal Inference Server"

_OLLAMA_GREETING = "Ollama is running"
"""The whole text, by which clients know that there is a server."""

_OLLAMA_AGENT = "ollama"
"""How the user agents of the official clients begin: `ollama/…`, `ollama-python/…`, `ollama-js/…`."""


class About(TypedDict):
    """What answers here."""

    name: str
    version: str
    status: Literal["running"]
    api: list[str]
    """The main paths."""
    docs: str
    """Where to read on."""


class ServerInfo(TypedDict):
    """The daemon."""

    name: str
    version: str
    uptime: float
    """Seconds since it started."""
    update: str | None
    """A newer version, where `server.update_url` tells of one."""


class EngineCounts(TypedDict):
    """How many engines there are."""

    total_engines: int
    loaded_engines: int
    unloaded_engines: int
    """An engine that is loading counts as unloaded."""
    autoscaling: Literal["enabled"]
    """Engines that are not loaded are loaded when they are used."""


class Health(TypedDict):
    """The daemon and its engines."""

    status: Literal["healthy", "degraded"]
    problems: list[str]
    """What the operator has to look at, a sentence each; empty where it is healthy."""
    timestamp: int
    """Unix time in milliseconds."""
    server: ServerInfo
    node_manager: EngineCounts
    engines: list[EngineStatus]


HEALTH_PATHS = ("/health", "/v1/health", "/status")
"""All the same: each is what some probe or older client asks."""


def routes() -> list[Route]:
    """The paths of this module."""
    return [
        Route("/", index),
        *(Route(path, health) for path in HEALTH_PATHS),
    ]


@Operation(group=Group.DAEMON, scope=Access.OPEN, answer="Name, version and the main paths.")
async def index(request: Request) -> JsonResponse[About] | PlainTextResponse | RedirectResponse:
    """What answers here. A browser is led to the console; clients of Ollama, and who asks for plain text, get `Ollama is running`."""
    if "text/html" in request.headers.get("accept", "").lower():
        return RedirectResponse("ui")  # relative, as a proxy may have put us under a path of its own
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
)
async def health(request: Request) -> JsonResponse[Health]:
    """Counts, and each engine's status."""
    services = services_of(request)
    engines = services.registry.list()
    loaded = sum(map(is_loaded, engines))
    problems = _problems(services)
    return JsonResponse(
        {
            "status": "degraded" if problems else "healthy",
            "problems": problems,
            "timestamp": time.time_ns() // 1_000_000,
            "server": {
                "name": _SERVER_NAME,
                "version": __version__,
                "uptime": round(time.monotonic() - services.started, 3),
                "update": services.update,
            },
            "node_manager": {
                "total_engines": len(engines),
                "loaded_engines": loaded,
                "unloaded_engines": len(engines) - loaded,
                "autoscaling": "enabled",
            },
            "engines": [engine_status(engine) for engine in engines],
        }
    )


def _problems(services: Services) -> list[str]:
    """What does not keep the daemon from answering, but is not as it should be. Says nothing that is secret."""
    file = services.registry.engine_file
    found = (file and file.problem, services.authenticator.problem, log_file_problem())
    return [problem for problem in found if problem]


def _wants_greeting(request: Request) -> bool:
    """Whether a request is an Ollama client's, or asks for plain text: then `GET /` is answered as by Ollama."""
    agent, accepted = request.headers.get("user-agent", ""), request.headers.get("accept", "")
    return agent.lower().startswith(_OLLAMA_AGENT) or accepted.strip().lower().startswith("text/plain")
