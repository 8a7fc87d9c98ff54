"""What a limited process that reads one format does: bytes in, text out. Imports Python's library only."""

from __future__ import annotations

import base64
import contextlib
import encodings
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, NoReturn

from kolosal.engines.worker.sandbox.limits import ProcessLimits
from kolosal.engines.worker.sandbox.serve import answers_line, attempt, serve
from kolosal.retrieval.formats.limits import MAX_TEXT_CHARS, check_length

_MIB: Final = 1024 * 1024

LIMITS: Final = {
    name: ProcessLimits(cpu_s=cpu_s, memory_bytes=768 * _MIB, answer_bytes=6 * MAX_TEXT_CHARS)
    for name, cpu_s in (("html", 3.0), ("pdf", 20.0), ("docx", 20.0))
}
"""Of one file. A page of a PDF takes some 20 ms; a file of 64 MiB takes 250 MiB before it is looked at."""

MAX_WALL_S: Final = 60.0
"""How long a file may take, where other programs have the processor."""


def serve_format(read: Callable[[bytes], str], name: str, *packages: ModuleType) -> NoReturn:
    """Answer requests for the text of files until the daemon is gone. `packages` are what reads them."""

    def answer(request: dict[str, Any]) -> bytes:
        return answers_line([attempt(_text, request["data"])])

    def _text(data: str) -> dict[str, str]:
        text = read(base64.b64decode(data))
        check_length(len(text))
        return {"text": text.encode(errors="replace").decode()}

    for package in (encodings, *packages):
        _import_all(package)
    serve(answer, LIMITS[name])


def _import_all(package: ModuleType) -> None:
    """Import what would be imported when a file needs it: by then nothing can be opened any more."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        with contextlib.suppress(
            ImportError, LookupError
        ):  # it is for another system, or needs another package
            importlib.import_module(module.name)
