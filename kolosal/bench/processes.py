"""The processes of a server under test: which they are, their memory, their certain end, and a port for another one."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import psutil

from kolosal.security.hosts import is_loopback


def server_pids(url: str, given: Sequence[int] = ()) -> tuple[int, ...]:
    """`given`, or whoever listens on the port of a loopback address; empty where that cannot be told."""
    if given:
        return tuple(given)
    address = urlsplit(url)
    if not is_loopback(address.hostname or ""):
        return ()
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:  # some systems tell an administrator only
        return ()
    found = {
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
        and connection.pid is not None
    }
    return tuple(sorted(found))


def rss_bytes(pids: Sequence[int]) -> int | None:
    """Resident bytes of these processes and their children; None where no process can be looked at."""
    sizes: dict[int, int] = {}
    for pid in pids:
        with suppress(psutil.Error):
            parent = psutil.Process(pid)
            for process in (parent, *parent.children(recursive=True)):
                with suppress(psutil.Error):  # it has just ended
                    sizes[process.pid] = process.memory_info().rss
    return sum(sizes.values()) if sizes else None


def end_tree(pid: int, grace_s: float) -> None:
    """Ask a process to end, give it time, then kill whatever is left of it and its children. Idempotent."""
    try:
        parent = psutil.Process(pid)
        children = parent.children(recursive=True)
        if grace_s > 0:
            parent.terminate()
            psutil.wait_procs([parent, *children], timeout=grace_s)
    except psutil.NoSuchProcess:
        return
    for process in (*children, parent):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
