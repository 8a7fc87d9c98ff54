"""What whole answers and chunks of the OpenAI dialect have in common: ids, counts, times and errors."""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import orjson

from kolosal import __version__
from kolosal.engines.parameters import EngineConfig
from kolosal.errors import KolosalError
from kolosal.http.responses import error_body
from kolosal.http.sse import data_frame
from kolosal.schema import Usage

_ALPHANUMERIC = string.ascii_letters + string.digits
_ID_CHARS = 24


def answer_id(prefix: str) -> str:
    """The id of a whole answer: `chatcmpl-` and 24 letters and digits."""
    return f"{prefix}-{''.join(secrets.choice(_ALPHANUMERIC) for _ in range(_ID_CHARS))}"


def stream_id(prefix: str, created: int) -> str:
    """The id that all chunks of a stream have: `chatcmpl-<unix time>-<number>`."""
    return f"{prefix}-{created}-{secrets.randbelow(10**12)}"


def system_fingerprint(config: EngineConfig) -> str:
    """Changes when the daemon's version, the model or a loading parameter does: then a seed's text may change, too."""
    digest = hashlib.sha256(__version__.encode() + orjson.dumps(config)).hexdigest()
    return f"fp_{digest[:10]}"


def error_frame(error: KolosalError) -> bytes:
    """The last frame of a stream that failed. No `[DONE]` follows, so official clients raise it."""
    return data_frame(error_body(error))


def usage_body(usages: Sequence[Usage]) -> dict[str, Any]:
    """The token counts of all prompts of a request together."""
    total = reduce(add, usages)
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.total_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cached_tokens},
    }


def timings_body(usage: Usage, timings: tuple[float, float]) -> dict[str, Any]:
    """Counts and milliseconds with llama-server's names. Reading the prompt includes waiting for a place in the batch."""
    prompt_s, predicted_s = timings
    prompt_n = usage.prompt_tokens - usage.cached_tokens
    return {
        "cache_n": usage.cached_tokens,
        **_timing("prompt", prompt_n, prompt_s),
        **_timing("predicted", usage.completion_tokens, predicted_s),
    }


def _timing(name: str, count: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": count,
        f"{name}_ms": round(1000 * seconds, 3),
        f"{name}_per_token_ms": round(1000 * seconds / count, 3) if count else 0.0,
        f"{name}_per_second": round(count / seconds, 3) if seconds else 0.0,
    }
