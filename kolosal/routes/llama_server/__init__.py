"""llama-server's own endpoints: tokens and templates, reranking, fill in the middle."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from kolosal.routes.llama_server import rerank, tokens
from kolosal.routes.llama_server.infill import infill


def routes() -> list[BaseRoute]:
    """`/infill`, `/tokenize`, `/detokenize`, `/apply-template` and the names of ranking."""
    return [
        *(Route(f"{prefix}/infill", infill, methods=["POST"]) for prefix in ("/v1", "")),
        *rerank.routes(),
        *tokens.routes(),
    ]
