"""The official OpenAI client before its version 3, which many programs still have: its tests once more, with that one installed.

They take some two minutes and download 1 MB once, so `scripts/test.py` runs them only with `--extra openai2`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DEADLINE_S = 900.0

TESTS = (
    "tests/routes/assistants",
    "tests/routes/common/test_access_sdk.py",
    "tests/routes/openai/responses/test_sdk.py",
    "tests/e2e/test_assistants_sdk.py",
    "tests/e2e/test_completions_sdk.py",
    "tests/e2e/test_documents.py",
    "tests/e2e/test_embeddings.py",
    "tests/e2e/test_openai_responses.py",
    "tests/e2e/test_openai_sdk.py",
)


def python(*arguments: str, path: str = "") -> str:
    """What a Python process says that must end well; `path` is where it looks for packages first."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=kept | ({"PYTHONPATH": path} if path else {}),
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with that client, made once for each `requirements.txt`."""
    folder = ROOT / ".cache" / "openai2" / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    if not (folder / "installed").exists():
        install = ("-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--upgrade")
        python(*install, "--target", str(folder), "--requirement", str(REQUIREMENTS))
        (folder / "installed").touch()
    return folder


@pytest.mark.timeout(DEADLINE_S)
def test_programs_with_version_2_work_as_those_with_version_3_do(packages: Path) -> None:
    assert python("-c", "import openai; print(openai.VERSION)", path=str(packages)).startswith("2.")
    python("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, path=str(packages))
