"""Routes: a package for each dialect, which decodes requests into `GenerateRequest`s and encodes what comes of them.

`all_routes` is the only list of paths, `DIALECTS` the only one of protocols with errors of their own shape. What a protocol
promises by itself is decided in its package: Ollama's `keep_alive` and `truncate`, the turns of a session, what the Responses API
keeps. Which engines there are, which have memory, and whose turn it is, no route decides.
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from kolosal.http.dialects import Dialect
from kolosal.routes import (
    admin,
    anthropic,
    assistants,
    console,
    conversation,
    documents,
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
        *llama_server.routes(),  # before `/models/{model}`, as one of its paths is `/models/sse`
        *openai.routes(),
        *assistants.routes(),
        *documents.routes(),
        *anthropic.routes(),
        *ollama.routes(),
        *conversation.routes(),
        *jsonrpc.routes(),
        *websocket.routes(),
        *openapi.routes(),
        *console.routes(),
    ]
