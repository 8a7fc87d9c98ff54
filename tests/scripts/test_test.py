from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from contracts import REQUESTS, changes, fields_of

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


def checks(script: ModuleType, *argv: str) -> dict[str, list[str]]:
    ours, pytests = script.split_arguments(argv)
    made = script.checks(Path("/b"), Path("/b/python"), script.parser().parse_args(ours), pytests)
    return {check.title: check.argv for check in made}


def test_every_check_is_run_in_order(script: ModuleType) -> None:
    made = checks(script)
    assert list(made) == ["format", "lint", "types", "import rules", "tests"]
    assert {"-n", "--durations"} < set(made["tests"])
    assert "--cov" not in made["tests"]
    assert "--cov" in checks(script, "--coverage")["tests"]


def test_fix_repairs_before_anything_is_checked(script: ModuleType) -> None:
    assert list(checks(script, "--fix"))[:3] == ["fix lint", "fix format", "format"]


def test_chosen_tests_are_run_as_pytest_runs_them(script: ModuleType) -> None:
    chosen = checks(script, "--thorough", "--", "tests/x", "-k", "y")
    assert chosen["tests"] == [str(Path("/b/python")), "-m", "pytest", "--thorough", "tests/x", "-k", "y"]


def test_fast_leaves_out_model_tests_and_faults(script: ModuleType) -> None:
    tests = checks(script, "--fast")["tests"]
    assert tests[tests.index("not model and not fault") - 1] == "-m"


def test_extra_tests_run_only_where_they_are_asked_for(script: ModuleType) -> None:
    assert "--ignore=tests/agents" in checks(script)["tests"]
    assert "--ignore=tests/agents" not in checks(script, "--extra", "agents")["tests"]


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


def test_what_changed_in_the_clients_contracts_is_told() -> None:
    locked = {"POST /v1/responses": ["input", "model"], "POST /api/chat": ["model"]}
    newest = {"POST /v1/responses": ["background_options", "input"], "POST /api/chat": ["model"]}
    assert changes(locked, newest) == ["POST /v1/responses: +background_options -model"]


def test_the_fields_of_the_clients_that_are_installed_are_found() -> None:
    assert {request for request, place in REQUESTS.items() if "model" not in fields_of(place)} == {
        "options of Ollama"
    }
