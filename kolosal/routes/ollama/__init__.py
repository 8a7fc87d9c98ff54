"""The Ollama dialect: generating, chat, embeddings and models, in JSON and in lines of JSON."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.http.dialects import Dialect
from kolosal.routes.ollama import create, manage, models
from kolosal.routes.ollama.embed import embed, embeddings
from kolosal.routes.ollama.endpoints import chat, generate
from kolosal.routes.ollama.errors import error_response
from kolosal.routes.ollama.pull import pull
from kolosal.routes.ollama.show import show

__all__ = ["DIALECT", "routes"]

DIALECT = Dialect(("/api",), error_response)


def routes() -> list[Route]:
    """The paths of this dialect. `GET /` is everybody's: see `kolosal.routes.admin.health`."""
    return [
        Route("/api/generate", generate, methods=["POST"]),
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/embed", embed, methods=["POST"]),
        Route("/api/embeddings", embeddings, methods=["POST"]),
        Route("/api/tags", models.tags),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/ps", models.running),
        Route("/api/version", models.version),
        Route("/api/copy", create.copy, methods=["POST"]),
        Route("/api/delete", manage.delete, methods=["DELETE"]),
        Route("/api/pull", pull, methods=["POST"]),
        Route("/api/push", manage.not_here, methods=["POST"]),
        Route("/api/create", create.create, methods=["POST"]),
        Route("/api/blobs/{digest}", create.has_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest}", create.take_blob, methods=["POST"]),
    ]
