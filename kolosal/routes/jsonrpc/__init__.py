"""The JSON-RPC dialect: `/rpc`, where a client's tools and the model take turns, and `/stream`."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.http.dialects import Dialect
from kolosal.routes.jsonrpc.errors import detail_response, rpc_error_response
from kolosal.routes.jsonrpc.rpc import call_method
from kolosal.routes.jsonrpc.stream import stream_text

__all__ = ["DETAIL_DIALECT", "DIALECT", "routes"]

DIALECT = Dialect(("/rpc",), rpc_error_response)
DETAIL_DIALECT = Dialect(("/stream",), detail_response)


def routes() -> list[Route]:
    """The paths of this dialect, without aliases: that is where its clients look."""
    return [
        Route("/rpc", call_method, methods=["POST"]),
        Route("/stream", stream_text, methods=["POST"]),
    ]
