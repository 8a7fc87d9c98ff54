from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bootstrap import Goal, Step, Wanted, keys, llama_version, plan, version_pair
from environment import Contents, pip_environment
from preflight import SetupError

WANTED = Wanted(root="/c", python="3.11", native="n1", project="p1", dev="", llama="0.3.36", model="0.1.2")
WITH_DEV = WANTED._replace(dev="d1")
STAMP = {"root": "/c", "python": "3.11", "native": "n1", "project": "p1", "dev": "d1"}
FOUND = Contents("3.11", "25.1", "0.3.36", True, "/m.gguf", "0.1.2")
EVERYTHING = [Step.VENV, Step.NATIVE, Step.PROJECT, Step.MODEL]


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in STAMP.items() if name not in names}


def test_nothing_to_do_when_all_keys_match() -> None:
    assert plan(WITH_DEV, STAMP, FOUND) == []


def test_fresh_clone_needs_everything() -> None:
    assert plan(WANTED, {}, None) == EVERYTHING
    assert plan(WITH_DEV, {}, None) == [*EVERYTHING, Step.PIP, Step.DEV]


@pytest.mark.parametrize(
    ("stamp", "found"),
    [
        (STAMP, None),  # the environment does not start
        ({**STAMP, "root": "/elsewhere"}, FOUND),  # the checkout was moved or copied
        ({**STAMP, "python": "3.12"}, FOUND),
        (STAMP, FOUND._replace(python="3.12")),
        (without("root"), FOUND),  # interrupted while the environment was made
    ],
)
def test_environment_that_cannot_be_trusted_is_made_anew(
    stamp: dict[str, str], found: Contents | None
) -> None:
    assert plan(WANTED, stamp, found) == EVERYTHING


def test_other_preset_rebuilds_llama_cpp_only() -> None:
    assert plan(WITH_DEV._replace(native="n2"), STAMP, FOUND) == [Step.NATIVE]


@pytest.mark.parametrize(
    ("stamp", "found", "steps"),
    [
        (without("native"), FOUND, [Step.NATIVE]),
        (STAMP, FOUND._replace(llama=""), [Step.NATIVE]),
        (STAMP, FOUND._replace(llama="0.3.35"), [Step.NATIVE]),
        (without("project"), FOUND, [Step.PROJECT]),
        (STAMP, FOUND._replace(kolosal=False), [Step.PROJECT]),
        (STAMP, FOUND._replace(model=""), [Step.MODEL]),
        (STAMP, FOUND._replace(model_version="0.1.1"), [Step.MODEL]),
        (without("dev"), FOUND, [Step.DEV]),
        (without("dev"), FOUND._replace(pip="23.2.1"), [Step.PIP, Step.DEV]),
    ],
)
def test_only_what_is_missing_is_done(stamp: dict[str, str], found: Contents, steps: list[Step]) -> None:
    assert plan(WITH_DEV, stamp, found) == steps


def test_embedded_model_is_not_fetched_when_not_asked_for() -> None:
    assert plan(WANTED._replace(model=""), STAMP, FOUND._replace(model="", model_version="")) == []


@pytest.mark.parametrize(
    ("text", "pair"), [("25.1", (25, 1)), ("26.3.1", (26, 3)), ("", (0, 0)), ("x.y", (0, 0)), ("26", (0, 0))]
)
def test_version_pair(text: str, pair: tuple[int, int]) -> None:
    assert version_pair(text) == pair


@pytest.mark.parametrize("dependencies", [[], ["llama-cpp-python"], ["llama-cpp-python>=1"], ["other==1"]])
def test_llama_version_must_be_pinned(dependencies: list[str]) -> None:
    with pytest.raises(SetupError, match="llama-cpp-python==VERSION"):
        llama_version({"project": {"dependencies": dependencies}})


def project(**changes: Any) -> dict[str, Any]:
    return {
        "project": {"dependencies": ["numpy>=1", "llama-cpp-python==0.3.36"]},
        "dependency-groups": {"dev": ["pytest"]},
        "tool": {"ruff": {"line-length": 100}},
        **changes,
    }


def test_lint_settings_do_not_reinstall_but_dependencies_do() -> None:
    goal = Goal("cpu", dev=True)
    before = keys(Path("/c"), project(), [], goal)
    assert keys(Path("/c"), project(tool={"ruff": {"line-length": 90}}), [], goal) == before
    added = keys(Path("/c"), project(project={"dependencies": ["llama-cpp-python==0.3.36", "new"]}), [], goal)
    assert added.project != before.project
    assert added.native == before.native


def test_cmake_arguments_decide_the_build_and_the_checkouts_place_does_not() -> None:
    goal = Goal("cpu")
    here = keys(Path("/here"), project(), ["-DX=/here/scripts/native.cmake"], goal)
    there = keys(Path("/there is"), project(), ["-DX=/there is/scripts/native.cmake"], goal)
    assert here.native == there.native
    assert here.root != there.root
    assert keys(Path("/here"), project(), ["-DX=1"], goal).native != here.native


def test_keys_are_empty_for_what_is_not_asked_for() -> None:
    wanted = keys(Path("/c"), project(), [], Goal("cpu", model=False))
    assert (wanted.dev, wanted.model, wanted.llama) == ("", "", "0.3.36")


def test_pip_installs_nowhere_but_into_the_environment() -> None:
    env = pip_environment(
        {"PATH": "/bin", "PYTHONPATH": "/x", "PIP_TARGET": "/y", "PIP_USER": "1", "PIP_INDEX_URL": "u"}
    )
    assert env["PIP_USER"] == "0"
    assert env["PIP_INDEX_URL"] == "u"
    assert "PYTHONPATH" not in env
    assert "PIP_TARGET" not in env
