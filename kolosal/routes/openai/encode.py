"""What a generation looks like in the OpenAI dialect: whole answers, chunks and errors.

Pure: from `TokenDelta`s and `Completion`s to JSON values and frames.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import orjson

from kolosal import __version__
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.stream import Completion
from kolosal.errors import KolosalError
from kolosal.http.responses import error_body
from kolosal.http.sse import DONE, data_frame
from kolosal.schema import TokenDelta, Usage

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


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Chat completions."""

    fingerprint: str
    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def extra(self) -> dict[str, Any]:
        return {"system_fingerprint": self.fingerprint}

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": completion.text}
        return {"index": index, "message": message, "finish_reason": completion.finish_reason}

    def first(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}

    def piece(self, index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}


@dataclass(frozen=True, slots=True)
class TextShape:
    """Completions."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def extra(self) -> dict[str, Any]:
        return {}

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        return {**self.piece(index, completion.text, completion.finish_reason)}

    def first(self, index: int) -> dict[str, Any]:
        return self.piece(index, "")

    def piece(self, index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


Shape = ChatShape | TextShape


def whole_answer(shape: Shape, model: str, completions: Sequence[Completion]) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    return {
        "id": answer_id(shape.prefix),
        "object": shape.whole_object,
        "created": int(time.time()),
        "model": model,
        **shape.extra(),
        "choices": [shape.choice(index, completion) for index, completion in enumerate(completions)],
        "usage": usage_body([completion.usage for completion in completions]),
    }


async def chunk_frames(
    shape: Shape,
    model: str,
    deltas: AsyncIterator[tuple[int, TokenDelta]],
    *,
    choices: int,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream: each choice's empty first chunk, pieces, each one's empty last chunk, usage, `[DONE]`."""
    created = int(time.time())
    envelope = {
        "id": stream_id(shape.prefix, created),
        "object": shape.chunk_object,
        "created": created,
        "model": model,
        **shape.extra(),
    }
    no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def frame(choice: dict[str, Any]) -> bytes:
        return data_frame({**envelope, "choices": [choice], **no_usage})

    usages: list[Usage] = []
    for index in range(choices):
        yield frame(shape.first(index))
    async for index, delta in deltas:
        if delta.text:
            yield frame(shape.piece(index, delta.text))
        if delta.finish_reason is not None and delta.usage is not None:
            usages.append(delta.usage)
            yield frame(shape.piece(index, "", delta.finish_reason))
    if include_usage:
        yield data_frame({**envelope, "choices": [], "usage": usage_body(usages)})
    yield DONE
