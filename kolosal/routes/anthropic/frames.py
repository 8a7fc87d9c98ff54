"""Server-sent events as the Anthropic dialect has them: each says its type twice, as `event` and in its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def event_frame(event: Mapping[str, Any]) -> bytes:
    """One event as a frame, named after its `type`."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


PING = event_frame({"type": "ping"})
"""Sent after the first block has begun, and while there is nothing else to send."""
