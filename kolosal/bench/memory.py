"""Resident memory of the server under test: its processes by id, or by who listens on its port on this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

import psutil


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
    processes: set[psutil.Process] = set()
    for pid in pids:
        try:
            parent = psutil.Process(pid)
            processes |= {parent, *parent.children(recursive=True)}
        except psutil.Error:
            continue
    sizes = [size for process in processes if (size := _rss(process)) is not None]
    return sum(sizes) if sizes else None


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _rss(process: psutil.Process) -> int | None:
    try:
        size: int = process.memory_info().rss
    except psutil.Error:
        return None
    return size
