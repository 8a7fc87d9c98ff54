"""llama.cpp's log: errors and warnings go to stderr, and the first error explains why an operation failed."""

from __future__ import annotations

import ctypes
import sys

from kolosal.engines.worker.llamacpp.native import native

_WARN, _ERROR, _CONTINUE = 3, 4, 5  # enum ggml_log_level


class NativeLog:
    """Listens to llama.cpp. There is one, which lives as long as the process: native code keeps a pointer to it."""

    def __init__(self) -> None:
        self._first_error = ""
        self._level = 0
        self._callback = native.llama_log_callback(self._on_line)

    def install(self) -> None:
        """Begin to listen."""
        native.llama_log_set(self._callback, ctypes.c_void_p(0))

    def begin(self) -> None:
        """Begin an operation: errors before it do not explain how it ends."""
        self._first_error = ""

    def reason(self) -> str:
        """Why the operation failed: its first error, as what follows are the consequences."""
        where, _, what = self._first_error.partition(": ")  # the name of the C++ function helps nobody
        return what or where or "it gave no reason"

    def _on_line(self, level: int, text: bytes, _data: object) -> None:
        self._level = self._level if level == _CONTINUE else level
        if self._level not in (_WARN, _ERROR):
            return
        line = text.decode(errors="replace")
        sys.stderr.write(line)
        if self._level == _ERROR and line.strip(". \n") and not self._first_error:
            self._first_error = line.strip()


native_log = NativeLog()
