"""How pip builds llama-cpp-python by a preset, in a checkout and in an installed Kolosal alike."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kolosal.native.preflight import SetupError, check_build_tools, check_disk
from kolosal.native.presets import PRESETS_FILE, Presets, default_preset, environment_value
from kolosal.native.progress import last_words, run_logged

if TYPE_CHECKING:
    from collections.abc import Mapping

LLAMA = "llama-cpp-python"
LOG_LINES = 25
"""How much of a failed command's output is shown."""
_FOREVER = ("--verbose", "--no-deps", "--no-binary", LLAMA)
BUILD_OPTIONS = (*_FOREVER, "--force-reinstall")
"""Of pip: build it here, whatever is there, and nothing else."""


def presets_root() -> Path:
    """The folder with CMakePresets.json: in the package where it was installed, else the checkout."""
    package = Path(__file__).resolve().parent
    return package if (package / PRESETS_FILE).exists() else package.parent.parent


def build_environment(cmake_args: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a build."""
    cores = str(os.cpu_count() or 1)
    return {
        "CMAKE_ARGS": cmake_args,
        "CMAKE_BUILD_PARALLEL_LEVEL": environ.get("CMAKE_BUILD_PARALLEL_LEVEL", cores),
    }


def machine() -> str:
    """Not platform.machine(): on Windows that starts a WMI query, which takes seconds on some machines."""
    if sys.platform == "win32":
        return os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return os.uname().machine


def this_machines_preset() -> str:
    """The one that is taken where none is named."""
    return default_preset(sys.platform, machine())


def required_llama() -> str:
    """`llama-cpp-python==VERSION`, as the installed Kolosal needs it: its C API is the one of that version."""
    requirements = importlib.metadata.requires("kolosal") or []
    return next(each for each in requirements if each.startswith(LLAMA + "=="))


def installer_argv(has_pip: bool, uv: str | None, python: str, requirement: str) -> list[str]:
    """The command that builds into this environment. One that uv made (`uv tool install`) has no pip.

    Raises:
        SetupError: there is neither.
    """
    if has_pip:
        return [
            python,
            "-m",
            "pip",
            "install",
            "--no-input",
            "--no-cache-dir",
            "--progress-bar",
            "off",
            *BUILD_OPTIONS,
            requirement,
        ]
    if uv is not None:
        return [uv, "pip", "install", "--python", python, "--no-cache", "--reinstall", *_FOREVER, requirement]
    raise SetupError(f"the environment of {python} has no pip, and there is no uv: run {python} -m ensurepip")


def build_installed(preset: str) -> None:
    """Build it into the environment that this program runs in.

    Raises:
        SetupError: something is missing, or the build failed; the message says what to do.
    """
    presets = Presets.load(presets_root())
    variables = presets.variables(preset)
    check_build_tools(preset, variables)
    check_disk(Path(sys.prefix))
    uv, has_pip = shutil.which("uv"), importlib.util.find_spec("pip") is not None
    argv = installer_argv(has_pip, uv, sys.executable, required_llama())
    cmake_args = environment_value(presets.cmake_args(preset), os.environ.get("CMAKE_ARGS", ""))
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", **build_environment(cmake_args, os.environ)}
    with tempfile.NamedTemporaryFile(prefix="kolosal-build-", suffix=".log", delete=False) as file:
        log = Path(file.name)
    title = f"llama.cpp ({preset})"
    if run_logged(title, argv, environ, log):
        raise SetupError(f"{title}: failed. The full log is {log}", last_words(log, LOG_LINES))
    log.unlink()
