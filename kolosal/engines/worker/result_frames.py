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


def failed(request_id: int, error: KolosalError) -> Failed:
    """The frame of an error that a client is meant to read."""
    return Failed(request_id, type(error).__name__, error.message, error.param)


def failed_unexpectedly(request_id: int, exc: Exception) -> Failed:
    """The frame of an error that nobody has foreseen, which is logged here.

    The log gets its kind and its place, but not its words: they may be the user's.
    """
    place = "".join(traceback.format_tb(exc.__traceback__))
    sys.stderr.write(f"A request could not be taken in: {type(exc).__name__}, at\n{place}")
    return failed(
        request_id,
        GenerationFailed(
            f"The engine could not read this request ({type(exc).__name__}); its log says where"
        ),
    )
