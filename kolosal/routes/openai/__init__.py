"""The OpenAI dialect: chat completions, completions, responses and models."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.openai.chat import create_chat_completion
from kolosal.routes.openai.completions import create_completion
from kolosal.routes.openai.embeddings import create_embeddings
from kolosal.routes.openai.models import list_models, show_model
from kolosal.routes.openai.responses import routes as response_routes

__all__ = ["routes"]


def routes() -> list[Route]:
    """The paths of this dialect, each with and without `/v1`."""
    return [
        route
        for prefix in ("/v1", "")
        for route in (
            Route(f"{prefix}/chat/completions", create_chat_completion, methods=["POST"]),
            Route(f"{prefix}/completions", create_completion, methods=["POST"]),
            Route(f"{prefix}/embeddings", create_embeddings, methods=["POST"]),
            Route(f"{prefix}/models", list_models),
            Route(f"{prefix}/models/{{model}}", show_model),
            *response_routes(prefix),
        )
    ]
