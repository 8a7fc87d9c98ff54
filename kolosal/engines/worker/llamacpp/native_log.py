"""llama.cpp's log: errors and warnings go to stderr, and the first error explains why an operation failed."""

from __future__ import annotations

import ctypes
import sys

from kolosal.engines.ipc.memory_words import say_out_of_memory
from kolosal.engines.worker.llamacpp.native import native

_WARN, _ERROR, _CONTINUE = 3, 4, 5  # enum ggml_log_level

_ABOUT_THE_POOL = "n_ctx_seq ("
"""A warning that compares the cells of all requests together with what the model was trained for: `EngineInfo.warnings` has the one that
is right."""


class NativeLog:
    """Listens to llama.cpp. There is one, which lives as long as the process: native code keeps a pointer to it."""

    def __init__(self) -> None:
        self._first_error = ""
        self._lacked_memory = False
        self._level = 0
        self._callback = native.llama_log_callback(self._on_line)

    def install(self) -> None:
        """Begin to listen."""
        native.llama_log_set(self._callback, ctypes.c_void_p(0))

    def begin(self) -> None:
        """Begin an operation: errors before it do not explain how it ends."""
        self._first_error, self._lacked_memory = "", False

    def lacked_memory(self) -> bool:
        """Whether one of the operation's errors, be it a consequence of the first, says that memory was short."""
        return self._lacked_memory

    def reason(self) -> str:
        """Why the operation failed: its first error, as what follows are the consequences."""
        where, _, what = self._first_error.partition(": ")  # the name of the C++ function helps nobody
        return what or where or "it gave no reason"

    def _on_line(self, level: int, text: bytes, _data: object) -> None:
        self._level = self._level if level == _CONTINUE else level
        line = text.decode(errors="replace")
        if self._level not in (_WARN, _ERROR) or _ABOUT_THE_POOL in line:
            return
        sys.stderr.write(line)
        if self._level == _ERROR and line.strip(". \n"):
            self._first_error = self._first_error or line.strip()
            self._lacked_memory |= say_out_of_memory(line)


native_log = NativeLog()
