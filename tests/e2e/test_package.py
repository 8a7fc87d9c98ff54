"""The wheel, installed into an empty environment and used from there: it has all that it needs besides its dependencies."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from kolosal import __version__
from tests.e2e.helpers import DEADLINE_S, ROOT, wait_until

pytestmark = pytest.mark.model  # slow: --fast leaves it out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel. Dependencies are those of these tests: compiling llama.cpp takes minutes."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    windows = sys.platform == "win32"
    python = folder / ("Scripts/python.exe" if windows else "bin/python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    packages = (
        folder
        / ("Lib" if windows else f"lib/python{sys.version_info[0]}.{sys.version_info[1]}")
        / "site-packages"
    )
    paths = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return python


def environment(home: Path) -> dict[str, str]:
    """Of somebody who has never seen the checkout."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("KOLOSAL_", "PYTHONPATH"))
    }
    homes = ("HOME", "APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    return inherited | dict.fromkeys(homes, str(home))


def run(python: Path, home: Path, *arguments: str) -> str:
    argv = [str(python), *arguments]
    return subprocess.run(
        argv, capture_output=True, text=True, check=True, cwd=home, env=environment(home)
    ).stdout


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"kolosal", f"kolosal-{__version__}.dist-info"}
    assert {"kolosal/native/CMakePresets.json", "kolosal/native/scripts/native.cmake"} <= {*names}


def test_the_command_is_the_installed_one(installed: Path, tmp_path: Path) -> None:
    place = run(installed, tmp_path, "-c", "import kolosal; print(kolosal.__file__)")
    assert Path(place).is_relative_to(installed.parent.parent)
    command = installed.with_name("kolosal.exe" if sys.platform == "win32" else "kolosal")
    said = run(command, tmp_path, "--version")
    assert said.startswith(f"kolosal {__version__}\nllama.cpp ")


def test_presets_are_found_in_the_package(installed: Path, tmp_path: Path) -> None:
    arguments = run(
        installed, tmp_path, "-m", "kolosal", "native", "build", "--preset", "cuda", "--print-args"
    )
    include = next(word for word in arguments.split() if "native.cmake" in word).rpartition("=")[2]
    assert Path(include).is_file()
    assert Path(include).is_relative_to(installed.parent.parent)


def test_a_model_is_served_from_it(installed: Path, tmp_path: Path, smollm2: Path) -> None:
    said = tmp_path / "said"
    argv = [str(installed), "-m", "kolosal", "serve", "--port", "0", "--model", f"small={smollm2}"]
    with said.open("wb") as out:
        daemon = subprocess.Popen(
            argv, cwd=tmp_path, env=environment(tmp_path), stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: b"listening on" in said.read_bytes())
        url = said.read_text(encoding="utf-8").partition("listening on ")[2].split()[0]
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
            body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
            answer = http.post("/v1/chat/completions", json=body)
            assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 4)
            pages = {
                path: http.get(path).status_code for path in ("/docs", "/openapi.json", "/ping", "/health")
            }
            assert {*pages.values()} == {200}, pages
    finally:
        daemon.terminate()
        daemon.wait(DEADLINE_S)
