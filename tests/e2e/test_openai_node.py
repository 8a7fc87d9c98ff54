"""The official OpenAI package for Node.js against the running daemon and a real model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import ENGINE, Daemon

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

FOLDER = Path(__file__).parent / "js"


def _run(folder: Path, *command: str) -> str:
    """Run one of Node.js's programs, from the Python environment of the tests."""
    program = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, capture_output=True, encoding="utf-8", timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def got(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client got."""
    folder = tmp_path_factory.mktemp("node")
    for file in FOLDER.iterdir():
        shutil.copy(file, folder)
    _run(folder, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    found: dict[str, Any] = json.loads(_run(folder, "node", "openai_client.mjs", f"{daemon.url}/v1", ENGINE))
    return found


def test_chats_are_answered_whole_and_streamed(got: dict[str, Any]) -> None:
    assert got["chat"] == got["stream"] == "The capital city of France is Paris."
    assert got["usage"]["total_tokens"] > got["usage"]["completion_tokens"]


def test_a_streamed_call_is_put_together(got: dict[str, Any]) -> None:
    arguments = json.loads(got["call"]["arguments"])
    assert (got["call"]["name"], got["finishReason"]) == ("weather", "tool_calls")
    assert set(arguments) == {"city", "days"}
    assert got["argumentDeltas"] > 1


def test_texts_are_continued_and_embedded(got: dict[str, Any]) -> None:
    assert got["completion"] == " 8, 9,"
    assert got["embeddings"] == pytest.approx([1, 1], abs=1e-4)


def test_responses_are_made_and_followed_up(got: dict[str, Any]) -> None:
    assert got["response"] == "The capital city of France is Paris."
    assert got["events"][:2] == ["response.created", "response.in_progress"]
    assert got["events"][2] in ("response.completed", "response.incomplete")


def test_an_unknown_model_is_an_error_of_its_class(got: dict[str, Any]) -> None:
    assert got["error"] == [True, 404, "invalid_request_error"]
