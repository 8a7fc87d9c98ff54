"""The official OpenAI client of an application without a socket, whichever of its major versions is installed."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import openai
from starlette.types import ASGIApp

_HTTP: Any = httpx if openai.VERSION.startswith("2.") else httpx2
"""What the client sends with: another package since its version 3."""


def openai_client(app: ASGIApp, api_key: str = "none") -> openai.AsyncOpenAI:
    """Tries everything once, and gets what the application answers, also where it fails."""
    transport = _HTTP.ASGITransport(app=app, raise_app_exceptions=False)
    return openai.AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key=api_key,
        max_retries=0,
        http_client=_HTTP.AsyncClient(transport=transport),
    )
