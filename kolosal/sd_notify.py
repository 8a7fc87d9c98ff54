"""What the daemon tells the service manager that started it: systemd's `sd_notify`, in one function."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


def notify(environ: Mapping[str, str], state: str) -> None:
    """Send a state, `READY=1` or `STOPPING=1`, to the manager that `NOTIFY_SOCKET` names; nothing where there is none."""
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
