"""What the daemon tells the service manager that started it: systemd's `sd_notify` and its watchdog."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


def notify(environ: Mapping[str, str], state: str) -> None:
    """Send a state, such as `READY=1`, to the manager that `NOTIFY_SOCKET` names; nothing where there is none."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # a name of Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), address)
    except OSError as exc:  # a manager that does not listen is no reason to stop
        log.warning("service.not_notified", extra={"reason": exc.strerror or str(exc)})


def watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How often the manager's watchdog must be told that this process lives: half of its patience; None without one."""
    patience_us = environ.get("WATCHDOG_USEC", "")
    if not patience_us.isdecimal() or int(patience_us) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # meant for the process that started this one
    return int(patience_us) / 2_000_000
