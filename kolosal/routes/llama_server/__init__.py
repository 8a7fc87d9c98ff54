"""llama-server's own endpoints: completions, tokens and templates, reranking, fill in the middle, what it tells of itself."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from kolosal.routes.common.operation import with_v1
from kolosal.routes.llama_server import rerank, router, tokens
from kolosal.routes.llama_server.completion import complete, complete_either
from kolosal.routes.llama_server.embedding import embed_natively
from kolosal.routes.llama_server.infill import infill
from kolosal.routes.llama_server.properties import props, slots
from kolosal.routes.llama_server.tokenizer_info import tokenizer_info


def routes() -> list[BaseRoute]:
    """`/completion`, `/infill`, `/embedding`, `/props`, `/slots`, those about tokens, and the names of ranking."""
    return [
        Route("/completion", complete, methods=["POST"]),
        Route("/completions", complete_either, methods=["POST"]),
        Route("/embedding", embed_natively, methods=["POST"]),
        Route("/props", props),
        Route("/slots", slots),
        Route("/tokenizer_info", tokenizer_info),
        *with_v1(Route("/infill", infill, methods=["POST"])),
        *rerank.routes(),
        *tokens.routes(),
        *router.routes(),
    ]
