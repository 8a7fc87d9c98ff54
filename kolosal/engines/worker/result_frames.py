"""The frames that end a unary call, and those that end any request with an error."""

from __future__ import annotations

import sys
import traceback

from kolosal.engines.ipc.calls import CallResult
from kolosal.engines.ipc.messages import MAX_FRAME_BYTES, Failed, UnaryResult, encode
from kolosal.errors import GenerationFailed, InvalidRequest, KolosalError


def result_frame(request_id: int, result: CallResult) -> UnaryResult:
    """The frame of a result.

    Raises:
        InvalidRequest: it is longer than a frame may be.
    """
    frame = UnaryResult(request_id, result)
    size = len(encode(frame))
    if size > MAX_FRAME_BYTES:
        raise InvalidRequest(
            f"The answer would have {size} bytes; at most {MAX_FRAME_BYTES} are allowed: ask for less"
        )
    return frame


def failed(request_id: int, exc: Exception) -> Failed:
    """The frame of an error.

    One that nobody has foreseen is logged with its kind and its place, but not its words: they may be the user's.
    """
    if isinstance(exc, KolosalError):
        facts = exc.facts
        return Failed(
            request_id,
            type(exc).__name__,
            exc.message,
            exc.param,
            facts.get("n_prompt_tokens", 0),
            facts.get("n_ctx", 0),
        )
    place = "".join(traceback.format_tb(exc.__traceback__))
    sys.stderr.write(f"A request could not be taken in: {type(exc).__name__}, at\n{place}")
    words = f"The engine could not read this request ({type(exc).__name__}); its log says where"
    return Failed(request_id, GenerationFailed.__name__, words)
