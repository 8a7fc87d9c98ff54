"""The end of processes that a benchmark started, with all their children, and a port for them to listen on."""

from __future__ import annotations

import socket

import psutil


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
