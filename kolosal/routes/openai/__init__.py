"""The OpenAI dialect: chat completions, completions, embeddings, responses and models."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.common.engine_path import MODEL
from kolosal.routes.common.operation import with_v1
from kolosal.routes.openai.chat import count_chat_tokens, create_chat_completion
from kolosal.routes.openai.completions import create_completion
from kolosal.routes.openai.embeddings import create_embeddings
from kolosal.routes.openai.models import list_models, show_model
from kolosal.routes.openai.responses import routes as response_routes

__all__ = ["routes"]


def routes() -> list[Route]:
    """The paths of this dialect, each with and without `/v1`. `/completions` without it is shared with llama-server's."""
    return [
        Route("/v1/completions", create_completion, methods=["POST"]),
        *with_v1(
            Route("/chat/completions", create_chat_completion, methods=["POST"]),
            Route("/chat/completions/input_tokens", count_chat_tokens, methods=["POST"]),
            Route("/embeddings", create_embeddings, methods=["POST"]),
            Route("/models", list_models),
            Route(MODEL, show_model),
            *response_routes(),
        ),
    ]
