"""llama-server's own endpoints: tokens and templates, reranking, fill in the middle."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from kolosal.routes.common.operation import with_v1
from kolosal.routes.llama_server import rerank, tokens
from kolosal.routes.llama_server.infill import infill


def routes() -> list[BaseRoute]:
    """`/infill`, `/tokenize`, `/detokenize`, `/apply-template` and the names of ranking."""
    return [
        *with_v1(Route("/infill", infill, methods=["POST"])),
        *rerank.routes(),
        *tokens.routes(),
    ]
