"""`GET /` as Ollama answers it. The path is shared: whoever does not come as an Ollama client gets the daemon's own answer."""

from __future__ import annotations

from starlette.requests import Request

GREETING = "Ollama is running"
"""The whole text, by which clients know that there is a server."""

_CLIENT = "ollama"
"""How the user agents of the official clients begin: `ollama/…`, `ollama-python/…`, `ollama-js/…`."""


def wants_greeting(request: Request) -> bool:
    """Whether a request is an Ollama client's, or asks for plain text."""
    agent, accepted = request.headers.get("user-agent", ""), request.headers.get("accept", "")
    return agent.lower().startswith(_CLIENT) or accepted.strip().lower().startswith("text/plain")
