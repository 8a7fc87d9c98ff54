"""The listening socket and uvicorn on it: one of each in a daemon. Knows no application and no engine."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from kolosal.config.settings import Settings
from kolosal.http.protocol import GuardedProtocol
from kolosal.http.websocket import PING_INTERVAL_S, PING_TIMEOUT_S, GuardedWebSocket

_BACKLOG = 1024
"""Connections that may wait to be accepted."""

_KEEP_ALIVE_S = 75
"""How long an idle connection is kept. Longer than clients keep theirs, so that they and not we close it."""

_LAST_BYTES_S = 3
"""How long answers may take to reach their clients once the engines have ended."""


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, with `::` for IPv4 too. Made before anything else starts, so that a taken port costs nothing.

    Raises:
        OSError: the address is taken, is not this machine's, or may not be listened on.
    """
    if ":" in host:
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=dual
        )
    return socket.create_server((host, port), backlog=_BACKLOG)


class HttpServer(uvicorn.Server):
    """uvicorn, less its handling of signals: it would exit with the signal's status and drain nothing of ours.

    `serve(sockets=[listener])` runs it; setting `should_exit` closes the socket and gives answers that are out a moment.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        tls: ssl.SSLContext | None,
        on_listening: Callable[[], None],
    ) -> None:
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws=GuardedWebSocket,
            ws_max_size=settings.sessions.max_message_size,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PING_TIMEOUT_S,
            ws_per_message_deflate=False,  # a few KiB can hold a whole message's worth of memory
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.server.trusted_proxies),
            forwarded_allow_ips=list(settings.server.trusted_proxies),
            limit_concurrency=settings.server.max_connections,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_BYTES_S,
        )
        config.load()
        config.ssl = tls  # made and checked before anything started
        super().__init__(config)
        self._on_listening = on_listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: they are the daemon's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, then say so."""
        await super().startup(sockets)
        self._on_listening()
