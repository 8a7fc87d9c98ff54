from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kolosal.native.preflight import SetupError
from kolosal.native.presets import PRESETS_FILE, Presets, default_preset, environment_value

CHECKOUT = Path(__file__).resolve().parents[2]


def presets(*configure: dict[str, Any], root: Path = Path("/somewhere")) -> Presets:
    return Presets(root, {"version": 3, "configurePresets": list(configure)})


def values(name: str, *configure: dict[str, Any]) -> dict[str, str]:
    return {variable: value for variable, (_, value) in presets(*configure).variables(name).items()}


def test_own_value_wins_over_a_parents() -> None:
    base = {"name": "base", "hidden": True, "cacheVariables": {"A": "base", "B": "base"}}
    assert values("cpu", base, {"name": "cpu", "inherits": "base", "cacheVariables": {"A": "own"}}) == {
        "A": "own",
        "B": "base",
    }


def test_earlier_parent_wins_over_a_later_one_and_over_what_that_inherits() -> None:
    root = {"name": "root", "cacheVariables": {"A": "root", "C": "root"}}
    first = {"name": "first", "cacheVariables": {"A": "first"}}
    second = {"name": "second", "inherits": ["root"], "cacheVariables": {"A": "second", "B": "second"}}
    child = {"name": "child", "inherits": ["first", "second"]}
    assert values("child", root, first, second, child) == {"A": "first", "B": "second", "C": "root"}


def test_null_unsets_an_inherited_value() -> None:
    base = {"name": "base", "cacheVariables": {"A": "1", "B": "2"}}
    assert values("cpu", base, {"name": "cpu", "inherits": "base", "cacheVariables": {"A": None}}) == {
        "B": "2"
    }


def test_null_of_an_earlier_parent_hides_a_later_parents_value() -> None:
    unset = {"name": "unset", "cacheVariables": {"A": None}}
    sets = {"name": "sets", "cacheVariables": {"A": "1"}}
    assert values("child", unset, sets, {"name": "child", "inherits": ["unset", "sets"]}) == {}


def test_types_are_passed_to_cmake() -> None:
    variables = {
        "T": True,
        "F": False,
        "S": "text",
        "P": {"type": "PATH", "value": "/x"},
        "O": {"value": True},
    }
    assert presets({"name": "cpu", "cacheVariables": variables}).cmake_args("cpu") == [
        "-DF:BOOL=FALSE",
        "-DO:BOOL=TRUE",
        "-DP:PATH=/x",
        "-DS=text",
        "-DT:BOOL=TRUE",
    ]


def test_macros_are_expanded() -> None:
    preset = {
        "name": "cpu",
        "cacheVariables": {"A": "${sourceDir}/x", "B": "${presetName}", "C": "${dollar}{x}"},
    }
    assert values("cpu", preset) == {"A": "/somewhere/x", "B": "cpu", "C": "${x}"}


@pytest.mark.parametrize("value", ["${nonsense}", "$env{HOME}"])
def test_unsupported_macro_is_named(value: str) -> None:
    with pytest.raises(SetupError, match="supported are"):
        values("cpu", {"name": "cpu", "cacheVariables": {"A": value}})


@pytest.mark.parametrize("value", [1, 1.5, [], {"type": "BOOL"}, {"value": 3}, {"value": None}])
def test_value_of_a_wrong_type_is_refused(value: object) -> None:
    with pytest.raises(SetupError, match="gives A the value"):
        values("cpu", {"name": "cpu", "cacheVariables": {"A": value}})


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(SetupError, match=r"unknown preset 'gpu'. Known presets: cpu, cuda"):
        presets({"name": "base", "hidden": True}, {"name": "cpu"}, {"name": "cuda"}).variables("gpu")


def test_hidden_preset_cannot_be_chosen() -> None:
    with pytest.raises(SetupError, match="unknown preset 'base'"):
        presets({"name": "base", "hidden": True}, {"name": "cpu"}).variables("base")


def test_circle_is_shown() -> None:
    circle = ({"name": "a", "inherits": "b"}, {"name": "b", "inherits": ["a"]})
    with pytest.raises(SetupError, match="in a circle: a -> b -> a"):
        presets(*circle).variables("a")


def test_unknown_parent_is_named() -> None:
    with pytest.raises(SetupError, match="'cpu' inherits from unknown preset 'gone'"):
        presets({"name": "cpu", "inherits": "gone"}).variables("cpu")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"configurePresets": [{}]}', '{"configurePresets": 3}', "\xff"]
)
def test_unreadable_file_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / PRESETS_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(SetupError, match="cannot read"):
        Presets.load(tmp_path)


def test_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="git checkout"):
        Presets.load(tmp_path)


def test_arguments_with_spaces_survive_the_environment_variable() -> None:
    args = ["-DA=/a b/c", "-DB:BOOL=TRUE"]
    assert shlex.split(environment_value(args, "-DC=1")) == [*args, "-DC=1"]
    assert environment_value([], "") == ""


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("darwin", "arm64", "metal"),
        ("darwin", "x86_64", "cpu"),
        ("linux", "aarch64", "cpu"),
        ("win32", "AMD64", "cpu"),
    ],
)
def test_default_preset(system: str, machine: str, expected: str) -> None:
    assert default_preset(system, machine) == expected


@pytest.mark.parametrize(
    ("name", "option"),
    [("cuda", "GGML_CUDA"), ("vulkan", "GGML_VULKAN"), ("metal", "GGML_METAL"), ("rocm", "GGML_HIP")],
)
def test_each_gpu_preset_of_this_checkout_switches_its_backend_on(name: str, option: str) -> None:
    variables = Presets.load(CHECKOUT).variables(name)
    assert variables[option] == ("BOOL", "TRUE")
    assert [variable for variable in variables if variable.startswith("GGML_")] == [option]


def test_this_checkouts_presets_can_be_chosen() -> None:
    assert Presets.load(CHECKOUT).selectable() == ["cpu", "cuda", "vulkan", "metal", "rocm"]


def test_cmake_reads_this_checkouts_file() -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake on PATH")
    done = subprocess.run([cmake, "--list-presets"], cwd=CHECKOUT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    for preset in json.loads((CHECKOUT / PRESETS_FILE).read_text())["configurePresets"]:
        assert (f'"{preset["name"]}"' in done.stdout) == (not preset.get("hidden", False))
