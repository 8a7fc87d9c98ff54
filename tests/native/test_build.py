"""How an installed Kolosal builds llama.cpp, without building it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kolosal.native import build
from kolosal.native.build import (
    build_environment,
    build_installed,
    installer_argv,
    required_llama,
)
from kolosal.native.preflight import SetupError

ROOT = Path(__file__).resolve().parents[2]
LLAMA = "llama-cpp-python==1.2.3"


def test_pip_or_else_uv_builds_and_installs_nothing_else() -> None:
    with_pip = installer_argv(True, "/bin/uv", "/env/python", LLAMA)
    with_uv = installer_argv(False, "/bin/uv", "/env/python", LLAMA)
    assert with_pip[:4] == ["/env/python", "-m", "pip", "install"]
    assert with_uv[:5] == ["/bin/uv", "pip", "install", "--python", "/env/python"]
    for argv in (with_pip, with_uv):
        assert {"--no-deps", "--no-binary", LLAMA} <= {*argv}
    assert "--force-reinstall" in with_pip
    assert "--reinstall" in with_uv
    with pytest.raises(SetupError, match="ensurepip"):
        installer_argv(False, None, "/env/python", LLAMA)


def test_the_version_is_the_one_that_is_required() -> None:
    assert required_llama() in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_build_takes_all_cores_unless_it_is_told_otherwise() -> None:
    assert int(build_environment("-DX=1", {})["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1
    assert build_environment("-DX=1", {"CMAKE_BUILD_PARALLEL_LEVEL": "3"}) == {
        "CMAKE_ARGS": "-DX=1",
        "CMAKE_BUILD_PARALLEL_LEVEL": "3",
    }


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that notes how it was called in place of building; the presets are those of the checkout."""
    notes = tmp_path / "notes"
    script = f"import os, sys; open({str(notes)!r}, 'w').write(os.environ['CMAKE_ARGS'] + '\\n' + ' '.join(sys.argv))"
    argv = [sys.executable, "-c", script, LLAMA]
    monkeypatch.setattr(build, "installer_argv", lambda *_: argv)
    monkeypatch.setattr(build, "check_build_tools", lambda *_: None)
    monkeypatch.setenv("CMAKE_ARGS", "-DMINE=1")
    return notes


def test_a_preset_and_the_users_own_arguments_reach_cmake(
    installer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_installed("cuda")
    arguments, argv = installer.read_text(encoding="utf-8").splitlines()
    assert "-DGGML_CUDA:BOOL=TRUE" in arguments
    assert arguments.endswith("-DMINE=1")
    assert LLAMA in argv
    assert "llama.cpp (cuda): done" in capsys.readouterr().out


def test_a_build_that_fails_keeps_its_log(
    monkeypatch: pytest.MonkeyPatch, installer: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        build, "installer_argv", lambda *_: [sys.executable, "-c", "raise SystemExit('no nvcc')"]
    )
    with pytest.raises(SetupError, match=r"failed\. The full log is") as raised:
        build_installed("cpu")
    assert raised.value.detail == ["no nvcc"]
    (log,) = tmp_path.glob("kolosal-build-*.log")
    assert str(log) in str(raised.value)
