"""What a limited process does: give up what it could do, then answer one request after the other.

A request is a line of JSON, an object with `"renew": bool`: whether it gets its whole processor time, or what the request before
has left of it. The answer is a line too: a list of `{"text": …}` or `{"error": …}`. Imports Python's library only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from kolosal.engines.worker.sandbox.limits import OUT_OF_MEMORY, ProcessLimits

if sys.platform == "win32":
    from kolosal.engines.worker.sandbox.limits_windows import limit_processor_time, limit_this_process
else:
    from kolosal.engines.worker.sandbox.limits_posix import limit_processor_time, limit_this_process

_MAX_REASON_CHARS: Final = 500
"""How much of the words of what fails is told to the client."""

_JSON = json.JSONEncoder(ensure_ascii=False, check_circular=False)


def serve(answer: Callable[[dict[str, Any]], bytes], limits: ProcessLimits) -> NoReturn:
    """Answer requests until the worker is gone. The first line that comes says that this process is ready."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    gc.freeze()  # so that collecting what a request has left looks at nothing else
    limit_this_process(limits.memory_bytes)
    left_s, line = limits.cpu_s, b"[]\n"
    request: Any
    with contextlib.suppress(BrokenPipeError):
        while True:
            answers.write(line)
            answers.flush()
            request = line = b""  # the next request may need all the memory there is
            gc.collect()
            asked = requests.readline()
            if not asked:
                break
            try:
                request, asked = json.loads(asked), b""
                limit_processor_time(limits.cpu_s if request["renew"] else left_s)
                line = answer(request)
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            left_s = limit_processor_time(0)
    os._exit(0)


def answers_line(answers: list[bytes]) -> bytes:
    """The line of some answers."""
    return b"[%b]\n" % b",".join(answers)


def attempt(work: Callable[[Any], dict[str, str]], given: Any) -> bytes:
    """What some work makes, as an answer, or why it fails.

    Raises:
        MemoryError: it costs more memory than there is.
    """
    try:
        return _JSON.encode(work(given)).encode()
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - a template raises what it likes, and so does compiling it: RecursionError, ValueError
        return refusal(exc)


def refusal(exc: Exception) -> bytes:
    """The answer that says what went wrong."""
    words = (
        exc.strerror if isinstance(exc, OSError) else ""
    )  # without the path of a codec that cannot be imported
    with contextlib.suppress(ValueError):  # a number with too many digits
        words = words or str(exc)[:_MAX_REASON_CHARS]
    return _JSON.encode({"error": words or type(exc).__name__}).encode(errors="replace")
