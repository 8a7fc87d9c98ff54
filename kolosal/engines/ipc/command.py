"""WorkerCommand: which program workers are, what of our environment they get, and what they are allowed.

Starts nothing: `process` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kolosal.config.engines import EngineSettings
from kolosal.engines.ipc.system import python_program
from kolosal.engines.parameters import LLAMACPP
from kolosal.engines.restart import RESTART_DELAYS_S

_PYTHON, _PYTHON_ENVIRONMENT = python_program()

_ENVIRONMENT_NAMES = frozenset({
    "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC",
    "PATHEXT", "PROGRAMDATA", "PROGRAMFILES", "APPDATA", "LOCALAPPDATA", "USERPROFILE", "NUMBER_OF_PROCESSORS",
    "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME",
})  # fmt: skip
_ENVIRONMENT_PREFIXES = (
    "LC_", "CUDA_", "NVIDIA_", "GGML_", "LLAMA_", "HIP_", "HSA_", "ROCR_", "VK_", "OMP_", "GOMP_", "KMP_", "MTL_",
)  # fmt: skip

_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""The prefixes would let LLAMA_API_KEY and NVIDIA_API_KEY through."""

_DEFAULTS = {"GOMP_SPINCOUNT": "500", "GGML_NO_BACKTRACE": "1"}
"""What workers are told unless our environment says otherwise.

How long a thread of llama.cpp spins for the others before it sleeps (libgomp's turns of a loop). libgomp's own default is some
milliseconds. One engine alone is no faster with it, but two that generate at once on the same cores spin in each other's
way: 7 tokens/s together instead of 70 (measured on 2 cores, docs/benchmarks.md).

No backtrace of a failed assertion: ggml would start a debugger for it, which writes what functions were called with, prompts
among it, where the reason of the death should be the last line.
"""


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the part of ours that llama.cpp may need, and defaults.

    No key or token reaches a process that parses model files.
    """
    chosen = {name: value for name, value in environ.items() if _is_for_workers(name.upper())}
    return {**_DEFAULTS, **chosen, **_PYTHON_ENVIRONMENT}


def _is_for_workers(name: str) -> bool:
    if name.startswith(_ENVIRONMENT_PREFIXES):
        return not any(word in name for word in _SECRET_WORDS)
    return name in _ENVIRONMENT_NAMES


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How the workers of all engines are started, and what they may take."""

    argv: tuple[str, ...] = (_PYTHON, "-m", "kolosal.engines.worker")
    """The program of workers over llama.cpp."""
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: EngineSettings = field(default_factory=EngineSettings)
    """What the operator allows engines and their workers."""
    restart_delays_s: tuple[float, ...] = RESTART_DELAYS_S
    """Pauses before the first restart, the second and later ones."""
    saved_folder: Path | None = None
    """Where conversations may be kept, as far as the settings allow; None: nowhere."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """Where the classes of backends are that a worker cannot find by their names, see `kolosal.backends.register_backend`."""

    def argv_of(self, backend: str) -> tuple[str, ...]:
        """The program of workers of a backend."""
        if backend == LLAMACPP:
            return self.argv
        return (_PYTHON, "-m", "kolosal.backends.worker", self.backends.get(backend, backend))
