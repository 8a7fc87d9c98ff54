"""Programs for the conversation engine, and every example of its page, run on the real model: form, not wisdom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conversation import snippets
from tests.e2e.helpers import ROOT, user_environment

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

LIMIT_S = 200
"""Longest run of a program: some twenty short generations on a machine that others use too."""

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "conversation.md").read_text(encoding="utf-8"), re.DOTALL
)

WHOLE = [
    snippets.STAND_INS,
    snippets.TRANSFORMERS,
    snippets.TALKING,
    snippets.IMPROVING,
    snippets.FUNCTIONS,
    snippets.LOOPS,
]


def run(program: str, smollm2: Path, folder: Path) -> str:
    """What a program prints. Answers are short: the model's parameters say so, as anybody may."""
    (folder / "model_config.yaml").write_text(
        f"model: {{id: '{smollm2.absolute().as_posix()}', device: cpu, parameters: {{max_new_tokens: 8, temperature: 0.7}}}}\n"
    )
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    environment = user_environment(folder) | coverage | {"LLM_SERVER_CONFIG_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"MODEL = {str(smollm2.absolute())!r}\n{program}"],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        env=environment,
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_c08_a_program_that_names_its_model(smollm2: Path, tmp_path: Path) -> None:
    printed = run("\n".join(WHOLE), smollm2, tmp_path)

    assert "Reply: " in printed
    assert "Turns: 4" in printed
    assert "Answers: 2" in printed


def test_c08_a_program_that_is_configured(smollm2: Path, tmp_path: Path) -> None:
    printed = run(snippets.CONFIGURATION + snippets.LOADING, smollm2, tmp_path)

    assert f"Model: {smollm2.absolute().as_posix()}" in printed
    assert "Revised: " in printed


def test_c08_the_examples_of_the_page(smollm2: Path, tmp_path: Path) -> None:
    printed = run("\n".join(EXAMPLES), smollm2, tmp_path)

    assert "The whole answer: " in printed
    assert "Turns: 4" in printed
