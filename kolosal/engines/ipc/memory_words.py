"""How llama.cpp, its backends, the C++ library and Python say that memory was short. Pure."""

from __future__ import annotations

import re

_OUT_OF_MEMORY = re.compile(
    r"out of (?:device |host )?memory|OutOf(?:Device|Host)Memory|(?:failed|unable) to (?:allocate|reserve)"
    r"|cannot allocate memory|insufficient memory|cudaMalloc failed|bad_alloc|MemoryError|mem_buffer != NULL",
    re.IGNORECASE,
)


def say_out_of_memory(words: str) -> bool:
    """Whether a program that failed says that it got no memory. Not to be asked of a text with names of files in it."""
    return _OUT_OF_MEMORY.search(words) is not None
