from __future__ import annotations

import ast
import errno
import socket
import sys
from pathlib import Path

import pytest

import kolosal.native.preflight as preflight
from kolosal.native.preflight import (
    SetupError,
    check_port,
    check_writable,
    compiler_problem,
    disk_problem,
    port_problem,
    python_problem,
    toolkit_problem,
    venv_problem,
)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PACKAGE = SCRIPTS.parent / "kolosal"
GIB = 1024**3


def nothing(_name: str) -> str | None:
    return None


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_supported_pythons_are_no_problem(version: tuple[int, int]) -> None:
    assert python_problem(version, nothing) is None


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 14), (4, 0)])
def test_other_pythons_are_told_the_range(version: tuple[int, int]) -> None:
    message = python_problem(version, nothing)
    assert message is not None
    assert f"this is Python {version[0]}.{version[1]}; Kolosal needs Python 3.11 to 3.13" in message
    assert "python.org" in message


def test_a_fitting_python_on_the_path_is_recommended() -> None:
    message = python_problem((3, 14), lambda name: "/usr/bin/x" if name == "python3.12" else None)
    assert message is not None
    assert message.endswith("run it with python3.12 instead of python3")


@pytest.mark.parametrize(
    ("platform", "managers", "advice"),
    [
        ("linux", ["apt"], "sudo apt install build-essential"),
        ("linux", ["dnf"], "sudo dnf install gcc-c++"),
        ("linux", ["pacman"], "sudo pacman -S base-devel"),
        ("linux", [], "install g++ or clang++"),
        ("darwin", [], "xcode-select --install"),
        ("win32", [], "winget install Microsoft.VisualStudio.2022.BuildTools"),
    ],
)
def test_missing_compiler_is_one_line_for_the_platform(
    platform: str, managers: list[str], advice: str
) -> None:
    message = compiler_problem(platform, False, managers)
    assert message is not None
    assert advice in message
    assert "\n" not in message
    assert compiler_problem(platform, True, managers) is None


@pytest.mark.parametrize(
    ("platform", "managers", "advice"),
    [
        ("linux", ["apt"], "sudo apt install python3-venv (or python3.12-venv)"),
        ("linux", [], "your distribution's package"),
        ("win32", [], "reinstall Python"),
        ("darwin", [], "reinstall Python"),
    ],
)
def test_missing_ensurepip_is_one_line_for_the_platform(
    platform: str, managers: list[str], advice: str
) -> None:
    message = venv_problem(platform, (3, 12), ["ensurepip"], managers)
    assert message is not None
    assert advice in message
    assert venv_problem(platform, (3, 12), [], managers) is None


def test_preset_needs_its_toolkit_or_the_variable_that_names_it() -> None:
    message = toolkit_problem("cuda", ["GGML_CUDA"], "linux", nothing, {})
    assert message is not None
    assert "preset 'cuda' needs nvcc" in message
    assert toolkit_problem("cuda", ["GGML_CUDA"], "linux", nothing, {"CUDACXX": "/opt/nvcc"}) is None
    assert toolkit_problem("cuda", ["GGML_CUDA"], "linux", lambda name: f"/usr/bin/{name}", {}) is None
    assert toolkit_problem("cpu", ["LLAVA_BUILD"], "linux", nothing, {}) is None


def test_metal_needs_macos() -> None:
    assert toolkit_problem("metal", ["GGML_METAL"], "darwin", nothing, {}) is None
    message = toolkit_problem("metal", ["GGML_METAL"], "linux", nothing, {})
    assert message is not None
    assert "needs macOS" in message


def test_little_disk_space_names_the_folder_and_both_numbers() -> None:
    assert disk_problem({"/a": 2 * GIB, "/b": 9 * GIB}) is None
    message = disk_problem({"/a": 9 * GIB, "/b": GIB // 2})
    assert message is not None
    assert message.startswith("only 0.5 GB free in /b, and the build needs about 2 GB")


@pytest.mark.parametrize(
    ("port", "error", "said"),
    [
        (8080, OSError(errno.EADDRINUSE, "in use"), "port 8080 on h is in use"),
        (8080, OSError(errno.EADDRINUSE, "in use"), "--port 8081"),
        (65535, OSError(errno.EADDRINUSE, "in use"), "--port 1"),
        (80, PermissionError(errno.EACCES, "denied"), "choose one above 1023"),
        (8080, PermissionError(errno.EACCES, "denied"), "is in use"),  # Windows: another has it exclusively
        (
            8080,
            socket.gaierror(-2, "Name or service not known"),
            "cannot listen on h port 8080 (Name or service",
        ),
        (8080, OSError(errno.EADDRNOTAVAIL, "not here"), "choose another address with --host"),
    ],
)
def test_port_messages(port: int, error: OSError, said: str) -> None:
    message = port_problem("h", port, error)
    assert message is not None
    assert said in message


def test_port_in_use_is_found_and_a_free_one_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SetupError, match="in use"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SetupError, match="cannot write in"):
        check_writable(tmp_path / "missing")


def test_compiler_named_by_cxx_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "/opt/compiler")
    preflight.check_build_tools("cpu", [])
    monkeypatch.delenv("CXX")
    with pytest.raises(SetupError, match="no C\\+\\+ compiler found"):
        preflight.check_build_tools("cpu", [])


@pytest.mark.parametrize("name", ["python3.7", "python3.8"])
def test_every_script_still_parses_on_an_old_python(name: str) -> None:
    """Otherwise an old Python answers with a SyntaxError instead of our line."""
    minor = int(name.rpartition(".")[2])
    for path in (*SCRIPTS.glob("*.py"), PACKAGE / "__init__.py", *(PACKAGE / "native").glob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, minor))
    assert sys.version_info >= (3, 11)
