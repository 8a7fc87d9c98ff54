"""A newer version of the daemon is told of, where the operator names an address that knows: `server.update_url`.

Off unless set: a daemon asks no host that nobody named. The answer is JSON with `version`, or `info.version` as PyPI has it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import orjson

from kolosal import __version__
from kolosal.files.in_thread import in_thread

log = logging.getLogger(__name__)

EVERY_S = 24 * 3600.0
"""Seconds between two questions."""

_TIMEOUT_S = 10.0
_MAX_BYTES = 4 * 1024 * 1024
_VERSION = re.compile(r"v?(\d+(?:\.\d+){0,3})")


def newer(answer: bytes, current: str = __version__) -> str | None:
    """The version that an answer tells of, where it is newer than `current`; releases only, by their numbers.

    Raises:
        ValueError: the answer has no version.
    """
    body: Any = orjson.loads(answer)
    info = body.get("info", body) if isinstance(body, dict) else None
    version = info.get("version") if isinstance(info, dict) else None
    if version is None:
        raise ValueError("its answer has no 'version'")
    found = _VERSION.fullmatch(str(version))
    own = _VERSION.match(current)
    if found is None or own is None:
        return None
    return found[1] if _numbers(found[1]) > _numbers(own[1]) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (version.split(".") + ["0"] * 4)[:4])


async def watch(url: str, found: Callable[[str | None], None], every_s: float = EVERY_S) -> None:
    """Ask now and once a day, for ever, and tell what was `found`. What fails is logged and asked again a day later."""
    while True:
        try:
            version = newer(await in_thread(_fetch, url))
        except (OSError, ValueError) as exc:
            log.warning("update.not_known", extra={"reason": f"server.update_url: {exc}"})
        else:
            found(version)
            if version is not None:
                log.info("update.available", extra={"version": version})
        await asyncio.sleep(every_s)


def _fetch(url: str) -> bytes:
    import httpx  # noqa: PLC0415 - used by those who ask only

    try:
        with httpx.stream("GET", url, timeout=_TIMEOUT_S, follow_redirects=True) as response:
            response.raise_for_status()
            body = b""
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise ValueError(f"its answer is longer than {_MAX_BYTES} bytes")
            return body
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise OSError(f"no answer: {exc}") from exc
