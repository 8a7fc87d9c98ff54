"""The OpenAI dialect: chat completions, completions, embeddings, responses and models."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.common.operation import with_v1
from kolosal.routes.openai.chat import create_chat_completion
from kolosal.routes.openai.completions import create_completion
from kolosal.routes.openai.embeddings import create_embeddings
from kolosal.routes.openai.models import list_models, show_model
from kolosal.routes.openai.responses import routes as response_routes

__all__ = ["routes"]


def routes() -> list[Route]:
    """The paths of this dialect, each with and without `/v1`."""
    return with_v1(
        Route("/chat/completions", create_chat_completion, methods=["POST"]),
        Route("/completions", create_completion, methods=["POST"]),
        Route("/embeddings", create_embeddings, methods=["POST"]),
        Route("/models", list_models),
        Route("/models/{model}", show_model),
        *response_routes(),
    )
