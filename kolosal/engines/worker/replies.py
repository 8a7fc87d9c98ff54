"""How questions end: the frames of an answer and of an error, and the checks that several answers have in common."""

from __future__ import annotations

import sys
import traceback

from kolosal.engines.ipc.calls import CallResult
from kolosal.engines.ipc.messages import MAX_FRAME_BYTES, Failed, UnaryResult, encode
from kolosal.errors import GenerationFailed, InvalidRequest, KolosalError


def check_tokens(tokens: tuple[int, ...], n_vocab: int, param: str) -> None:
    """See that all tokens are of the vocabulary: llama.cpp does not look.

    Raises:
        InvalidRequest: one is not.
    """
    if tokens and max(tokens) >= n_vocab:
        raise InvalidRequest(
            f"{param} must be below {n_vocab}, the size of the model's vocabulary, not {max(tokens)}",
            param=param,
        )


def failed(request_id: int, error: KolosalError) -> Failed:
    """An error as the frame that ends a question."""
    return Failed(request_id, type(error).__name__, error.message, error.param)


def defect(exc: Exception) -> GenerationFailed:
    """The error that tells of one nobody has foreseen.

    The log gets its kind and its place, but not its words: they may be the user's.
    """
    place = "".join(traceback.format_tb(exc.__traceback__))
    sys.stderr.write(f"A request could not be taken in: {type(exc).__name__}, at\n{place}")
    return GenerationFailed(
        f"The engine could not read this request ({type(exc).__name__}); its log says where"
    )


def framed(request_id: int, answer: CallResult) -> UnaryResult:
    """An answer as its frame.

    Raises:
        InvalidRequest: it is longer than a frame may be.
    """
    frame = UnaryResult(request_id, answer)
    size = len(encode(frame))
    if size > MAX_FRAME_BYTES:
        raise InvalidRequest(
            f"The answer would have {size} bytes; at most {MAX_FRAME_BYTES} are allowed: ask for less"
        )
    return frame
