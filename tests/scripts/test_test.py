from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Loaded by path: `import test` is the standard library's."""
    spec = importlib.util.spec_from_file_location("kolosal_test_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def titles(
    script: ModuleType, *, fast: bool = False, fix: bool = False, args: list[str] | None = None
) -> list[str]:
    return [check.title for check in script.checks(Path("/b"), Path("/b/python"), fast, fix, args or [])]


def test_every_check_is_run_in_order(script: ModuleType) -> None:
    assert titles(script) == ["format", "lint", "types", "import rules", "tests", "coverage data", "coverage"]


def test_fix_repairs_before_anything_is_checked(script: ModuleType) -> None:
    assert titles(script, fix=True)[:3] == ["fix lint", "fix format", "format"]


def test_chosen_tests_are_run_without_the_coverage_floor(script: ModuleType) -> None:
    chosen = script.checks(Path("/b"), Path("/b/python"), False, False, ["tests/x", "-k", "y"])
    assert chosen[-1].argv == [str(Path("/b/python")), "-m", "pytest", "tests/x", "-k", "y"]
    assert "coverage" not in [check.title for check in chosen]


def test_fast_leaves_out_model_tests_and_the_floor(script: ModuleType) -> None:
    by_title = {
        check.title: check.argv for check in script.checks(Path("/b"), Path("/b/python"), True, False, [])
    }
    assert by_title["tests"][-2:] == ["-m", "not model"]
    assert "--fail-under=0" in by_title["coverage"]


@pytest.mark.parametrize(
    ("argv", "ours", "pytests"),
    [
        ([], [], []),
        (["--fast"], ["--fast"], []),
        (["--fast", "--", "-k", "x"], ["--fast"], ["-k", "x"]),
        (["--", "a", "--", "b"], [], ["a", "--", "b"]),
    ],
)
def test_arguments_after_two_dashes_are_pytests(
    script: ModuleType, argv: list[str], ours: list[str], pytests: list[str]
) -> None:
    assert script.split_arguments(argv) == (ours, pytests)


def test_table_counts_failures(script: ModuleType) -> None:
    outcomes = [script.Outcome("lint", 0, 1.0), script.Outcome("tests", 2, 61.25)]
    shown = script.table(outcomes).splitlines()
    assert shown[1].split() == ["tests", "FAILED", "61.2", "s"]
    assert shown[-1] == "1 of 2 checks failed"
    assert script.table(outcomes[:1]).endswith("all 1 checks passed")
