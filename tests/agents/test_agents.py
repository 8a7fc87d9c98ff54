"""Coding agents as people install them, against a daemon whose model is scripted: each makes its tool call and finishes.

They are tests of form: what an agent sends is taken, and what comes back makes it act. The model says what stands between `<say>` and
`</say>` in the prompt last, so the task has the call and the file that it reads has the answer. They take some 40 s and download
some 300 MB once, so `scripts/test.py` runs them only with `--extra agents`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_worker import fake_worker_argv
from tests.faults.daemons import FakeDaemon, fake_daemon
from tests.gguf_files import gguf

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("agents")]

PACKAGES = Path(__file__).with_name("package.json")
CACHE = Path(__file__).parents[2] / ".cache" / "agents"

ENGINES = ("scripted", "gpt-5.5", "gpt-6.1-sol")
"""Codex knows the last two, and sends them what it sends OpenAI's: custom tools, namespaces, a search for tools."""

ANSWER = "The file has been read."
NOTE = f"It says <say>{ANSWER}</say>\n"

DEADLINE_S = 120.0

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")

_NO_PROXY = "http://127.0.0.1:9"
"""Nothing listens there: agents that ask for anything else than the daemon get nothing."""


@dataclass(frozen=True, slots=True)
class Agents:
    """The programs, as npm installed them."""

    modules: Path

    def native(self, pattern: str) -> list[str]:
        """A program that a package for this platform has."""
        return [str(min(self.modules.glob(pattern)))]

    def script(self, path: str) -> list[str]:
        """A program that Node.js runs."""
        return ["node", str(self.modules / path)]


@pytest.fixture(scope="session")
def agents() -> Agents:
    """All agents of `agents/package.json`, installed once for each such file, without running their scripts."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no npm")
    folder = CACHE / hashlib.sha256(PACKAGES.read_bytes()).hexdigest()[:16]
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGES, folder)
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=500)
        if done.returncode:
            pytest.skip(f"npm could not install the agents: {done.stderr[-300:]}")
        (folder / "installed").touch()
    return Agents(folder / "node_modules")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, agents: Agents) -> Iterator[FakeDaemon]:
    """A daemon, where there are agents, whose engines have a context window for prompts of 100,000 bytes."""
    file = tmp_path_factory.mktemp("models") / "model.gguf"
    file.write_bytes(gguf())
    parameters = {"n_ctx": 262_144, "n_parallel": 2, "n_batch": 8192}
    models = [
        {"id": name, "path": str(file), "load_immediately": True, "parameters": parameters}
        for name in ENGINES
    ]
    with fake_daemon(fake_worker_argv(), models=models) as running:
        running.until(**dict.fromkeys(ENGINES, "ready"))
        yield running


@dataclass(frozen=True, slots=True)
class Task:
    """A folder with a note, which an agent works in, and a home of its own."""

    folder: Path
    home: Path
    url: str

    def run(self, command: list[str], variables: Mapping[str, str], stdin: str = "") -> str:
        """What an agent says."""
        homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(self.home))
        proxies = dict.fromkeys(PROXIES, _NO_PROXY)
        kept = {name: os.environ[name] for name in ("PATH", "SystemRoot", "TEMP") if name in os.environ}
        local = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**kept, **homes, **proxies, **local, **variables},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture
def task(tmp_path: Path, daemon: FakeDaemon) -> Task:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    (folder / "note.txt").write_text(NOTE, encoding="utf-8")
    return Task(folder, home, daemon.url)


def says(*calls: tuple[str, Mapping[str, object]]) -> str:
    """What makes the model call tools."""
    written = (json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls)
    return "<say>" + "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in written) + "</say>"


PATCH = '*** Begin Patch\n*** Add File: made.txt\n+She said "here".\n*** End Patch'
READ = "cat note.txt" if sys.platform != "win32" else "type note.txt"
SCRIPT = f"const result = await tools.exec_command({{cmd: {json.dumps(READ)}}}); text(result.output);\n"


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        ("scripted", [("exec_command", {"cmd": READ})]),
        ("gpt-5.5", [("apply_patch", {"input": PATCH}), ("exec_command", {"cmd": READ})]),
        ("gpt-6.1-sol", [("exec", {"input": SCRIPT})]),
    ],
    ids=["function", "custom", "namespace"],
)
def test_codex(task: Task, agents: Agents, model: str, calls: list[tuple[str, Mapping[str, object]]]) -> None:
    settings = task.home / ".codex" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(
        f'model = "{model}"\nmodel_provider = "kolosal"\n[model_providers.kolosal]\nname = "Kolosal"\n'
        f'base_url = "{task.url}/v1"\nwire_api = "responses"\n'
    )
    options = ["exec", "--skip-git-repo-check", "--sandbox", "danger-full-access"]
    said = task.run([*agents.script("@openai/codex/bin/codex.js"), *options, says(*calls)], {})
    assert ANSWER in said
    if model == "gpt-5.5":
        assert (task.folder / "made.txt").read_text() == 'She said "here".\n'


def test_claude_code(task: Task, agents: Agents) -> None:
    prompt = says(("Read", {"file_path": str(task.folder / "note.txt")}))
    program = agents.native("@anthropic-ai/claude-code-*/claude*")
    variables = {
        "ANTHROPIC_BASE_URL": task.url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    assert ANSWER in task.run(
        [*program, "-p", prompt, "--model", "scripted", "--allowedTools=Read"], variables
    )


def test_qwen_code(task: Task, agents: Agents) -> None:
    prompt = says(("read_file", {"file_path": str(task.folder / "note.txt")}))
    program = agents.script("@qwen-code/qwen-code/cli.js")
    variables = {"OPENAI_BASE_URL": f"{task.url}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": "scripted"}
    variables |= dict.fromkeys(PROXIES, "")  # it has the proxy asked for the daemon, whatever NO_PROXY says
    assert ANSWER in task.run([*program, "--auth-type", "openai", "-y", prompt], variables)


def test_opencode(task: Task, agents: Agents) -> None:
    prompt = says(("read", {"filePath": str(task.folder / "note.txt")}))
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{task.url}/v1"},
        "models": {"scripted": {}},
    }
    settings = {"provider": {"kolosal": provider}, "autoupdate": False, "share": "disabled"}
    (task.folder / "opencode.json").write_text(json.dumps(settings))
    program = agents.native("opencode-*-*/bin/opencode*")
    said = task.run([*program, "run", "--model", "kolosal/scripted"], {}, stdin=prompt)
    assert ANSWER in said
