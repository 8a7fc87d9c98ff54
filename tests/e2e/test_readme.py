"""Every example of the README is run as it stands there, but for port, path and length."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Cli
from tests.e2e.helpers import DEADLINE_S, ROOT, Daemon

pytestmark = pytest.mark.model

_EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)

SHELL = [text.splitlines() for language, text in _EXAMPLES if language == "sh"]
CURL = [lines for lines in SHELL if lines[0].startswith("curl")]
TERMINAL = [lines for lines in SHELL if lines[0].startswith("kolosal")]
PYTHON = [text for language, text in _EXAMPLES if language == "python"]

SETUP = (
    "git clone",
    "cd kolosal",
    "python3 scripts/",
    "pipx ",
    "docker ",
    "kolosal native ",
    "kolosal serve",
)
"""Lines that prepare what the tests already run in."""


def adapted(text: str, daemon: Daemon, model: Path) -> str:
    text = text.replace("http://127.0.0.1:8080", daemon.url)
    return re.sub(r"/models/[\w.-]+\.gguf", model.as_posix(), text)


def test_no_example_is_left_out() -> None:
    assert {language for language, _ in _EXAMPLES} == {"sh", "powershell", "python"}
    others = [lines for lines in SHELL if lines not in CURL and lines not in TERMINAL]
    assert [line for lines in others for line in lines if not line.startswith(SETUP)] == []
    assert [len(examples) for examples in (CURL, TERMINAL, PYTHON)] == [2, 1, 1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("lines", CURL, ids=lambda lines: lines[0][:60])
def test_curl_examples(lines: list[str], daemon: Daemon, http: httpx.Client, tiny_gguf: Path) -> None:
    for line in lines:
        words = shlex.split(adapted(line, daemon, tiny_gguf))
        quiet = [words[0], "--silent", "--show-error", *words[1:]]
        done = subprocess.run(quiet, capture_output=True, encoding="utf-8", timeout=DEADLINE_S)
        assert (done.returncode, done.stderr) == (0, "")
        answer = json.loads(done.stdout)
        assert "error" not in answer
        if "choices" in answer:
            assert answer["choices"][0]["message"]["content"].strip()


@pytest.mark.parametrize("code", PYTHON)
def test_python_examples(code: str, daemon: Daemon, tiny_gguf: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", adapted(code, daemon, tiny_gguf)],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
        env=daemon.environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.parametrize("lines", TERMINAL, ids=lambda lines: lines[0])
def test_terminal_examples(
    lines: list[str], cli: Cli, daemon: Daemon, http: httpx.Client, tiny_gguf: Path
) -> None:
    for line in lines:
        _, *arguments = shlex.split(adapted(line, daemon, tiny_gguf))
        if arguments[0] == "run":  # which may go on until the context is full
            done = cli(*arguments, "--max-tokens", "32", input="Say hello.")
        else:
            done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert all(
            line.startswith("Loading ") for line in done.stderr.splitlines()
        )  # of a load that takes a while
        assert done.stdout.strip()
