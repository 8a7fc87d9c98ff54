"""The checks of `kolosal doctor`: what the facts about this machine mean.

Pure: facts in, one check per fact out. `facts` does the looking.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kolosal.commands.doctor.facts import Facts, NativeProbe, PortState, settings_of
from kolosal.commands.doctor.fits import ModelFit
from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration
from kolosal.config.server import ServerSettings
from kolosal.observe.nvml import GpuReport
from kolosal.security.hosts import is_loopback

OLDEST_PYTHON = (3, 11)
SCARCE_MEMORY_BYTES = 2 * 1024**3
"""Less free memory than this holds only the smallest models."""

REBUILD = "build it again on this machine: kolosal native build"


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """Works, but less than it could, or less safely."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def diagnose(facts: Facts) -> list[Check]:
    """One check per fact, in the order in which to repair what is wrong."""
    settings = settings_of(facts.configuration)
    return [
        _python(facts.python),
        _native(facts.native),
        _gpus(facts.gpus, facts.native),
        _memory(facts.free_memory_bytes, facts.total_memory_bytes),
        _configuration(facts.configuration),
        *map(_model, facts.models),
        _port(facts.port, settings.server),
    ]


def _python(version: tuple[int, int, int]) -> Check:
    found = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return Check("Python", Verdict.FAIL, found, "install Python 3.11 or newer")
    return Check("Python", Verdict.OK, found)


def _native(probe: NativeProbe) -> Check:
    if probe.error is None:
        features = " ".join(probe.system_info.replace(" = 1", "").replace("|", " ").split())
        return Check("llama.cpp", Verdict.OK, f"{probe.description.removeprefix('llama.cpp ')}; {features}")
    advice = REBUILD
    if "No module named" in probe.error:
        advice = "install it: kolosal native build, or python scripts/run.py in the checkout"
    elif "SIGILL" in probe.error or "illegal instruction" in probe.error:
        advice = f"it was built for a newer CPU than this one; {REBUILD}"
    return Check("llama.cpp", Verdict.FAIL, f"does not load: {probe.error}", advice)


def _gpus(report: GpuReport, native: NativeProbe) -> Check:
    if not report.gpus:
        return Check("GPU", Verdict.OK, f"no NVIDIA GPU to see ({report.reason or 'the driver lists none'})")
    found = "; ".join(
        gpu.name
        if gpu.total_bytes is None
        else f"{gpu.name}, {_gib(gpu.free_bytes or 0)} of {_gib(gpu.total_bytes)} free"
        for gpu in report.gpus
    )
    if native.error is None and not native.gpu_offload:
        advice = "llama.cpp was built without GPU support; build it with: kolosal native build --preset cuda"
        return Check("GPU", Verdict.WARN, f"{found}, not used", advice)
    return Check("GPU", Verdict.OK, f"{found} (driver {report.driver})")


def _memory(free: int, total: int) -> Check:
    found = f"{_gib(free)} of {_gib(total)} free"
    if free < SCARCE_MEMORY_BYTES:
        return Check("Memory", Verdict.WARN, found, "only the smallest models fit: close other programs")
    return Check("Memory", Verdict.OK, found)


def _configuration(configuration: Configuration | ConfigError) -> Check:
    if isinstance(configuration, ConfigError):
        advice = "correct it; docs/configuration.md lists every setting"
        return Check("Configuration", Verdict.FAIL, str(configuration), advice)
    return Check("Configuration", Verdict.OK, str(configuration.file or "defaults, no file"))


def _model(model: ModelFit) -> Check:
    advice = "" if model.fits else "its first request would be refused: see docs/api/engines.md#what-fits"
    return Check(
        "Model", Verdict.OK if model.fits else Verdict.WARN, f"{model.engine_id} {model.found}", advice
    )


def _port(port: tuple[PortState, str], server: ServerSettings) -> Check:
    state, word = port
    found = f"{server.host}:{server.port}"
    match state:
        case PortState.TAKEN:
            advice = "choose another with --port or KOLOSAL_PORT"
            return Check("Address", Verdict.FAIL, f"{found} is taken ({word})", advice)
        case PortState.REFUSED:
            advice = "choose another with --host and --port"
            return Check("Address", Verdict.FAIL, f"cannot listen on {found}: {word}", advice)
        case PortState.DAEMON:
            found = f"a daemon answers on {found} ({word})"
        case PortState.FREE:
            found = f"{found} is free"
    if is_loopback(server.host.lower()):
        return Check("Address", Verdict.OK, found)
    advice = "other machines can reach it, so the daemon starts only with an API key: see docs/security.md"
    return Check("Address", Verdict.WARN, found, advice)


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
