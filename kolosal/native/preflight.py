"""What must be true before long work starts, and the one line that says what to do when it is not.

The messages and choices are pure functions of (platform, what was found); the probes beside them look at this
machine. This module and whatever it imports must load on any Python 3: it is where an old one is told so.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 13)
BUILD_BYTES = 2 * 1024**3  # llama.cpp's sources, objects and libraries plus the Python packages
PROBE_S = 20.0  # bounds xcode-select and vswhere, which answer in milliseconds

BUILD_TOOLS = (
    "winget install Microsoft.VisualStudio.2022.BuildTools "
    '--override "--wait --passive --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"'
)
COMPILER_PACKAGES = {
    "apt": "sudo apt install build-essential",
    "dnf": "sudo dnf install gcc-c++",
    "pacman": "sudo pacman -S base-devel",
    "zypper": "sudo zypper install gcc-c++",
    "apk": "sudo apk add build-base linux-headers",
}


class SetupError(Exception):
    """Something the reader can put right. The message is one line; `detail` is shown before it."""

    def __init__(self, message: str, detail: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.detail = list(detail)


class Toolkit(NamedTuple):
    """What a preset's build needs besides a C++ compiler."""

    program: str
    override: str  # the environment variable that names it when it is not on PATH
    advice: str


TOOLKITS = {
    "GGML_CUDA": Toolkit("nvcc", "CUDACXX", "install the CUDA toolkit and put its bin folder on PATH"),
    "GGML_VULKAN": Toolkit(
        "glslc", "Vulkan_GLSLC_EXECUTABLE", "install the Vulkan SDK (Debian: libvulkan-dev glslc)"
    ),
    "GGML_HIP": Toolkit("hipconfig", "HIPCXX", "install ROCm and put its bin folder on PATH"),
}


def python_problem(version: tuple[int, int], which: Callable[[str], str | None]) -> str | None:
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return None
    known = [f"python3.{minor}" for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1)]
    found = next((name for name in known if which(name)), None)
    advice = (
        f"run it with {found} instead of python3"
        if found
        else "install one from https://www.python.org/downloads"
    )
    return (
        f"this is Python {version[0]}.{version[1]}; Kolosal needs Python "
        f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}: {advice}"
    )


def venv_problem(
    platform: str, version: tuple[int, int], missing: Iterable[str], managers: Iterable[str]
) -> str | None:
    """`missing` are the standard-library modules that this Python lacks; distributions split them off."""
    absent = " and ".join(missing)
    if not absent:
        return None
    if platform == "linux" and "apt" in managers:
        advice = f"run: sudo apt install python3-venv (or python{version[0]}.{version[1]}-venv)"
    elif platform == "linux":
        advice = "install your distribution's package with Python's venv and ensurepip modules"
    else:
        advice = "reinstall Python from https://www.python.org/downloads with pip included"
    return f"this Python has no {absent}, so no virtual environment can be made: {advice}"


def compiler_problem(platform: str, found: bool, managers: Iterable[str]) -> str | None:
    if found:
        return None
    if platform == "darwin":
        advice = "run: xcode-select --install"
    elif platform == "win32":
        advice = f"install the Build Tools for Visual Studio: {BUILD_TOOLS}"
    else:
        commands = [COMPILER_PACKAGES[manager] for manager in managers if manager in COMPILER_PACKAGES]
        advice = f"run: {commands[0]}" if commands else "install g++ or clang++ with your package manager"
    return f"no C++ compiler found, and llama.cpp must be compiled once: {advice}"


def toolkit_problem(
    preset: str,
    variables: Iterable[str],
    platform: str,
    which: Callable[[str], str | None],
    env: Mapping[str, str],
) -> str | None:
    if "GGML_METAL" in variables and platform != "darwin":
        return f"preset '{preset}' needs macOS: choose another one with --preset"
    for variable in variables:
        need = TOOLKITS.get(variable)
        if need and not which(need.program) and not env.get(need.override):
            return f"preset '{preset}' needs {need.program}, which is not on PATH: {need.advice}, or set {need.override}"
    return None


def disk_problem(free: Mapping[str, int], needed: int = BUILD_BYTES) -> str | None:
    """`free` maps each folder that will be written to the bytes left there."""
    for folder, left in free.items():
        if left < needed:
            return (
                f"only {left / 1024**3:.1f} GB free in {folder}, and the build needs about {needed / 1024**3:.0f} GB: "
                "free some space" + (", or set TMPDIR to a larger disk" if len(free) > 1 else "")
            )
    return None


def port_problem(host: str, port: int, error: OSError | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, PermissionError) and port < 1024:
        return f"port {port} is reserved for the administrator: choose one above 1023 with --port"
    if isinstance(error, PermissionError) or error.errno in (
        errno.EADDRINUSE,
        getattr(errno, "WSAEADDRINUSE", -1),
    ):
        return f"port {port} on {host} is in use: stop the program that has it, or choose another: --port {port % 65535 + 1}"
    return (
        f"cannot listen on {host} port {port} ({error.strerror or error}): choose another address with --host"
    )


# The probes: they look at this machine and hand what they find to the functions above.


def package_managers() -> list[str]:
    return [manager for manager in COMPILER_PACKAGES if shutil.which(manager)]


def check_python() -> None:
    _raise_if(python_problem(sys.version_info[:2], shutil.which))


def check_venv_modules() -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    _raise_if(venv_problem(sys.platform, sys.version_info[:2], missing, package_managers()))


def check_build_tools(preset: str, variables: Iterable[str]) -> None:
    _raise_if(compiler_problem(sys.platform, _has_compiler(), package_managers()))
    _raise_if(toolkit_problem(preset, variables, sys.platform, shutil.which, os.environ))


def check_disk(root: Path) -> None:
    folders = {str(root), tempfile.gettempdir()}
    _raise_if(disk_problem({folder: shutil.disk_usage(folder).free for folder in sorted(folders)}))


def check_writable(folder: Path) -> None:
    """By writing: on Windows and on read-only mounts the permission bits do not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise SetupError(
            f"cannot write in {folder} ({exc.strerror}): clone Kolosal into a folder that you own and run it there"
        ) from exc


def check_port(host: str, port: int) -> None:
    error: OSError | None = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as exc:
        error = exc
    _raise_if(port_problem(host, port, error))


def _raise_if(problem: str | None) -> None:
    if problem is not None:
        raise SetupError(problem)


def _has_compiler() -> bool:
    if os.environ.get("CXX"):
        return True
    if sys.platform == "darwin":  # /usr/bin/c++ is there without the tools; it only offers to install them
        return _answers(["xcode-select", "-p"])
    if sys.platform == "win32":
        base = os.environ.get("PROGRAMFILES(X86)", r"C:\Program Files (x86)")
        vswhere = Path(base, "Microsoft Visual Studio", "Installer", "vswhere.exe")
        tools = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
        query = [str(vswhere), "-products", "*", "-requires", tools, "-property", "installationPath"]
        return shutil.which("cl") is not None or _answers(query)
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def _answers(argv: list[str]) -> bool:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())
