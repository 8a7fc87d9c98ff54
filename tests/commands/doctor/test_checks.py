"""The doctor's verdicts on scripted facts, and its looking at things that crash or are taken."""

from __future__ import annotations

import dataclasses
import socket
import sys
from typing import Any

import pytest

from kolosal.commands.doctor.checks import Check, Verdict, diagnose
from kolosal.commands.doctor.facts import PROBE, Facts, NativeProbe, PortState, probe_native, probe_port
from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration, load_settings
from kolosal.observe.nvml import GpuFacts, GpuReport
from tests.settings import settings_of

GIB = 1024**3
H200 = GpuFacts(0, "NVIDIA H200", 140 * GIB, 139 * GIB)


@pytest.fixture
def healthy(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """A machine on which everything works."""
    monkeypatch.chdir(tmp_path)
    return Facts(
        python=(3, 12, 1),
        native=NativeProbe(
            "0.3.36", "CPU : AVX2 = 1 | FMA = 1 | ", gpu_offload=True, commit="0c1e570", ggml="0.25"
        ),
        gpus=GpuReport((H200,), "580.1"),
        free_memory_bytes=8 * GIB,
        total_memory_bytes=16 * GIB,
        configuration=load_settings(environ={}),
        models=(),
        port=(PortState.FREE, ""),
    )


def check(facts: Facts, name: str, **changes: Any) -> Check:
    """The verdict called `name` on facts that differ in `changes`."""
    (found,) = (one for one in diagnose(dataclasses.replace(facts, **changes)) if one.name == name)
    return found


def test_a_healthy_machine_passes(healthy: Facts) -> None:
    assert {one.verdict for one in diagnose(healthy)} == {Verdict.OK}
    assert check(healthy, "llama.cpp").found == "0c1e570 (ggml 0.25, llama-cpp-python 0.3.36); CPU : AVX2 FMA"
    assert check(healthy, "GPU").found == "NVIDIA H200, 139.0 GiB of 140.0 GiB free (driver 580.1)"


def test_everything_that_is_wrong_comes_with_advice(healthy: Facts) -> None:
    wrong = dataclasses.replace(
        healthy,
        python=(3, 10, 0),
        native=NativeProbe(error="exit status 1"),
        free_memory_bytes=0,
        configuration=ConfigError("config.yaml:1: x"),
        port=(PortState.TAKEN, "Address already in use"),
    )
    assert all(one.advice for one in diagnose(wrong) if one.verdict is not Verdict.OK)
    assert sum(one.verdict is Verdict.FAIL for one in diagnose(wrong)) == 4


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("exit status 1: ModuleNotFoundError: No module named 'llama_cpp'", "kolosal native build"),
        ("killed by SIGILL", "newer CPU"),
        ("illegal instruction: this build needs a newer CPU (0xC000001D)", "newer CPU"),
        ("killed by SIGSEGV", "build it again"),
    ],
)
def test_a_library_that_does_not_load_fails(healthy: Facts, error: str, advice: str) -> None:
    found = check(healthy, "llama.cpp", native=NativeProbe(error=error))
    assert found.verdict is Verdict.FAIL
    assert advice in found.advice


def test_a_gpu_that_the_build_cannot_use_is_a_warning(healthy: Facts) -> None:
    found = check(healthy, "GPU", native=NativeProbe("0.3.36", "", gpu_offload=False))
    assert (found.verdict, "--preset cuda" in found.advice) == (Verdict.WARN, True)


def test_no_gpu_is_fine(healthy: Facts) -> None:
    found = check(healthy, "GPU", gpus=GpuReport(reason="NVML Shared Library Not Found"))
    assert (found.verdict, "Not Found" in found.found) == (Verdict.OK, True)


def test_a_gpu_without_memory_of_its_own_is_shown(healthy: Facts) -> None:
    assert (
        check(healthy, "GPU", gpus=GpuReport((GpuFacts(0, "GB10", None, None),), "1")).found
        == "GB10 (driver 1)"
    )


def with_host(facts: Facts, host: str) -> Configuration:
    assert isinstance(facts.configuration, Configuration)
    return dataclasses.replace(facts.configuration, settings=settings_of(host=host))


@pytest.mark.parametrize(
    ("host", "outcome"),
    [("127.0.0.1", Verdict.OK), ("localhost", Verdict.OK), ("::1", Verdict.OK), ("0.0.0.0", Verdict.WARN)],
)
def test_an_address_that_others_can_reach_is_a_warning(healthy: Facts, host: str, outcome: Verdict) -> None:
    assert check(healthy, "Address", configuration=with_host(healthy, host)).verdict is outcome


@pytest.mark.parametrize(
    ("state", "outcome"),
    [(PortState.DAEMON, Verdict.OK), (PortState.TAKEN, Verdict.FAIL), (PortState.REFUSED, Verdict.FAIL)],
)
def test_the_state_of_the_port_decides(healthy: Facts, state: PortState, outcome: Verdict) -> None:
    assert check(healthy, "Address", port=(state, "why")).verdict is outcome


# --- looking ---


def probe(code: str) -> NativeProbe:
    return probe_native([sys.executable, "-c", code])


def test_a_library_that_crashes_is_reported() -> None:
    found = probe("import os; os.abort()")
    assert found.error
    assert "SIGABRT" in found.error or "0x" in found.error or "exit status" in found.error


def test_a_library_that_is_missing_is_reported_in_pythons_words() -> None:
    assert probe("import no_such_library").error == (
        "exit status 1: ModuleNotFoundError: No module named 'no_such_library'"
    )


def test_a_probe_that_talks_nonsense_is_reported() -> None:
    assert probe("print('hello')").error == "gave an answer that makes no sense"


def test_a_probe_that_cannot_start_is_reported() -> None:
    assert "no process" in (probe_native(["/nonexistent/python"]).error or "")


def test_native_output_does_not_disturb_the_answer(tmp_path: Any) -> None:
    (tmp_path / "llama_cpp.py").write_text(
        "import os; os.write(1, b'ggml: hello\\n'); __version__ = '1'\n"
        "llama_print_system_info = lambda: b'CPU'\nllama_supports_gpu_offload = lambda: 1\n"
    )
    found = probe(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROBE}")
    assert found == NativeProbe("1", "CPU", gpu_offload=True, commit="unknown", ggml="unknown")


@pytest.mark.model
def test_the_real_library_loads() -> None:
    assert probe(PROBE).error is None


def test_a_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    assert probe_port(settings_of(port=port))[0] is PortState.FREE
    assert probe_port(settings_of(port=0))[0] is PortState.FREE


def test_a_name_that_is_no_address_is_refused() -> None:
    assert probe_port(settings_of(host="no-such-host.invalid", port=1))[0] is PortState.REFUSED
