"""The facts `kolosal doctor` judges: what this machine, its drivers and its ports are like now.

Owns all looking: it starts a process, opens a socket, asks the GPU driver. Judges nothing. The native library is loaded
in a process of its own, so that one which crashes is reported, not suffered.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from kolosal.commands.address import Address
from kolosal.commands.client import DaemonClient
from kolosal.commands.doctor.fits import ModelFit, machine_memory, model_fit
from kolosal.commands.errors import CommandError, DaemonUnreachable
from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration, load_settings
from kolosal.config.settings import Settings
from kolosal.engines.ipc.system import describe_exit
from kolosal.observe.nvml import GpuReport, read_gpus

PROBE_TIMEOUT_S = 60.0
"""Loading the native library takes a second, behind a virus scanner many."""

# ggml prints to stdout; the answer goes to the real one, which is kept aside
PROBE = """
import json, os
answer = os.dup(1)
os.dup2(2, 1)
import ctypes, llama_cpp
def told(name):
    try:
        from llama_cpp import _ctypes_extensions, _ggml
        function = getattr(_ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path), name)
    except (AttributeError, ImportError, OSError):
        return "unknown"
    function.restype = ctypes.c_char_p
    return function().decode()
info = llama_cpp.llama_print_system_info().decode()
found = {"version": llama_cpp.__version__, "system_info": info, "gpu": bool(llama_cpp.llama_supports_gpu_offload()),
         "commit": told("ggml_commit"), "ggml": told("ggml_version")}
os.write(answer, json.dumps(found).encode())
"""


@dataclass(frozen=True, slots=True)
class NativeProbe:
    """What loading llama.cpp in a process of its own showed; `error` when it did not load."""

    version: str = ""
    system_info: str = ""
    gpu_offload: bool = False
    error: str | None = None
    commit: str = ""
    """Of llama.cpp's repository."""
    ggml: str = ""

    @property
    def description(self) -> str:
        """Which llama.cpp it is."""
        if self.error is not None:
            return f"llama.cpp does not load ({self.error}): see `kolosal doctor`"
        return f"llama.cpp {self.commit} (ggml {self.ggml}, llama-cpp-python {self.version})"


class PortState(StrEnum):
    """Who has the daemon's address."""

    FREE = "free"
    DAEMON = "daemon"
    TAKEN = "taken"
    REFUSED = "refused"
    """The system does not let us listen there."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that `diagnose` needs to know."""

    python: tuple[int, int, int]
    native: NativeProbe
    gpus: GpuReport
    free_memory_bytes: int
    total_memory_bytes: int
    configuration: Configuration | ConfigError
    models: tuple[ModelFit, ...]
    """The configured ones."""
    port: tuple[PortState, str]
    """The state and a word on it."""


def gather(config_path: Path | None) -> Facts:
    """Look at everything. Blocks for a second or so."""
    configuration: Configuration | ConfigError
    try:
        configuration = load_settings(config_path=config_path)
    except ConfigError as exc:
        configuration = exc
    memory = psutil.virtual_memory()
    settings = settings_of(configuration)
    machine = machine_memory()
    return Facts(
        python=sys.version_info[:3],
        native=probe_installed(),
        gpus=read_gpus(),
        free_memory_bytes=memory.available,
        total_memory_bytes=memory.total,
        configuration=configuration,
        models=tuple(model_fit(entry, machine) for entry in settings.models),
        port=probe_port(settings),
    )


def settings_of(configuration: Configuration | ConfigError) -> Settings:
    """The settings to go on with: the defaults where those that were given cannot be used."""
    return Settings() if isinstance(configuration, ConfigError) else configuration.settings


def probe_installed() -> NativeProbe:
    """The llama.cpp that workers load."""
    return probe_native([sys.executable, "-P", "-c", PROBE])


def probe_native(argv: list[str]) -> NativeProbe:
    """Run the probe. Whatever happens to it becomes an answer."""
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return NativeProbe(error=f"did not load within {PROBE_TIMEOUT_S:g} seconds")
    except OSError as exc:
        return NativeProbe(error=f"no process could be started: {exc.strerror}")
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return NativeProbe(error=f"{describe_exit(done.returncode)}{f': {last[:300]}' if last else ''}")
    try:
        found = json.loads(done.stdout)
        version, info, gpu = found["version"], found["system_info"], found["gpu"]
        return NativeProbe(
            version, info, gpu, commit=found["commit"].removesuffix("-dirty"), ggml=found["ggml"]
        )
    except (ValueError, KeyError, TypeError):
        return NativeProbe(error="gave an answer that makes no sense")


def probe_port(settings: Settings) -> tuple[PortState, str]:
    """Ask for a daemon at the address; where none answers, try to listen there for a moment."""
    server = settings.server
    if server.port == 0:
        return PortState.FREE, "any free port"
    try:
        return PortState.DAEMON, asyncio.run(_version(Address.of(settings)))
    except DaemonUnreachable:
        return _try_to_listen(server.host, server.port)
    except CommandError as exc:
        return PortState.TAKEN, str(exc)


async def _version(address: Address) -> str:
    async with DaemonClient(address) as client:
        server = (await client.health()).get("server")
    return f"version {server.get('version', '?')}" if isinstance(server, dict) else "version unknown"


def _try_to_listen(host: str, port: int) -> tuple[PortState, str]:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as exc:
        state = PortState.TAKEN if exc.errno == errno.EADDRINUSE else PortState.REFUSED
        return state, exc.strerror or str(exc)
    return PortState.FREE, "nothing listens there"
