"""Routes: one module per dialect, each a decoder to `GenerateRequest` and an encoder from `TokenDelta`.

`all_routes` is the only list of paths, `DIALECTS` the only one of protocols with errors of their own shape. A route decodes,
calls an engine and encodes; it holds no policy.
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from kolosal.http.dialects import Dialect
from kolosal.routes import (
    admin,
    anthropic,
    conversation,
    jsonrpc,
    llama_server,
    ollama,
    openai,
    openapi,
    websocket,
)

__all__ = ["DIALECTS", "all_routes"]

DIALECTS: tuple[Dialect, ...] = (
    anthropic.DIALECT,
    conversation.DIALECT,
    jsonrpc.DIALECT,
    jsonrpc.DETAIL_DIALECT,
    ollama.DIALECT,
    websocket.DIALECT,
)
"""Protocols with a shape of errors other than OpenAI's."""


def all_routes() -> list[BaseRoute]:
    """Every path this daemon answers."""
    return [
        *admin.routes(),
        *openai.routes(),
        *anthropic.routes(),
        *ollama.routes(),
        *conversation.routes(),
        *jsonrpc.routes(),
        *websocket.routes(),
        *llama_server.routes(),
        *openapi.routes(),
    ]
