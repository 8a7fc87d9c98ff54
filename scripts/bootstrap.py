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

from environment import MODEL_PACKAGE, Contents, Environment

from kolosal.native.build import BUILD_OPTIONS, LLAMA, build_environment, machine
from kolosal.native.preflight import (
    SetupError,
    check_build_tools,
    check_disk,
    check_python,
    check_venv_modules,
    check_writable,
)
from kolosal.native.presets import Presets, environment_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STAMP = "kolosal-setup.json"
LOCKS = "scripts/locks"
"""Versions and hashes of all that is installed, written by scripts/lock.py; `newest` leaves them aside."""


class Step(enum.Enum):
    VENV = "python environment"
    PIP = "pip"
    NATIVE = "llama.cpp"
    PROJECT = "kolosal and its dependencies"
    MODEL = "model SmolLM2-135M-Instruct"
    DEV = "development tools"


class Wanted(NamedTuple):
    """The keys of a finished setup. Equal keys mean that nothing needs installing."""

    root: str
    python: str
    native: str
    project: str
    dev: str
    pip: str
    llama: str
    model: str


class Goal(NamedTuple):
    """What the caller asks for."""

    preset: str
    model: bool = True
    dev: bool = False
    rebuild: bool = False
    newest: bool = False
    """The newest version of everything that pyproject.toml allows, in `.venv-newest`."""


def plan(wanted: Wanted, stamp: Mapping[str, str], found: Contents | None) -> list[Step]:
    """`wanted.dev` and `wanted.model` are "" when not asked for."""
    same_place = stamp.get("root") == wanted.root and stamp.get("python") == wanted.python
    if found is None or not same_place or found.python != wanted.python:
        found, stamp, steps = Contents("", "", "", False, "", ""), {}, [Step.VENV]
    else:
        steps = []
    if found.pip != wanted.pip:
        steps.append(Step.PIP)
    if stamp.get("native") != wanted.native or found.llama != wanted.llama:
        steps.append(Step.NATIVE)
    if stamp.get("project") != wanted.project or not found.kolosal:
        steps.append(Step.PROJECT)
    if wanted.model and (not found.model or found.model_version != wanted.model):
        steps.append(Step.MODEL)
    if wanted.dev and stamp.get("dev") != wanted.dev:
        steps.append(Step.DEV)
    return steps


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def keys(root: Path, project: Mapping[str, Any], cmake_args: list[str], goal: Goal) -> Wanted:
    """Only the tables that decide what gets installed count: a lint setting must not reinstall anything."""
    installs = [project.get("build-system"), project.get("project"), project.get("tool", {}).get("hatch")]
    llama = locked_version(root, LLAMA, "native")
    locks = {name: "" if goal.newest else lock_text(root, name) for name in ("build", "run", "dev")}
    return Wanted(
        root=str(root),
        python="{}.{}".format(*sys.version_info[:2]),
        native=digest([llama, recipe(root, cmake_args), cpu_identity()]),
        project=digest([installs, locks["run"], locks["build"]]),
        dev=digest([installs, locks["dev"], project.get("dependency-groups")]) if goal.dev else "",
        pip=locked_version(root, "pip", "pip"),
        llama=llama,
        model=locked_version(root, MODEL_PACKAGE, "model") if goal.model else "",
    )


def lock_text(root: Path, name: str) -> str:
    try:
        return (root / LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    except OSError as exc:
        raise SetupError(f"cannot read {root / LOCKS / name}.txt: {exc.strerror}") from exc


def locked_version(root: Path, package: str, lock: str) -> str:
    """The only place that names it: the line `package==VERSION` of a lock."""
    for line in lock_text(root, lock).splitlines():
        name, pinned, version = line.partition("==")
        if pinned and name == package:
            return version.split()[0]
    raise SetupError(f"{LOCKS}/{lock}.txt must contain {package}==VERSION: write it with scripts/lock.py")


def recipe(root: Path, cmake_args: list[str]) -> list[str]:
    """What the build is made from, without where: a second clone elsewhere can take the first one's build."""
    included = root / "scripts" / "native.cmake"
    script = included.read_text("utf-8") if included.exists() else ""
    return [script, *(arg.replace(root.as_posix(), "") for arg in cmake_args)]


class Setup:
    """Brings one checkout's `.venv` to a goal. Call `ensure` once; it raises SetupError with what to do."""

    def __init__(self, root: Path, goal: Goal) -> None:
        check_python()
        self.environment = Environment(root, folder=".venv-newest" if goal.newest else ".venv")
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

    def add_extra(self, name: str) -> None:
        """Install one of the project's extras too. What is there already is left as it is."""
        title = f"extra {name}"
        with self.environment.locked():
            if self._goal.newest:
                self.environment.pip(title, "--upgrade", f"{self.environment.root}[{name}]")
            else:
                self.environment.pip(title, "--require-hashes", "--requirement", str(self._lock(name)))

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
            Step.PIP: lambda: self._install_lock(step, "pip"),
            Step.NATIVE: self._build_native,
            Step.PROJECT: self._install_project,
            Step.MODEL: lambda: self._install_lock(step, "model", "--no-deps", "--force-reinstall"),
            Step.DEV: self._install_dev,
        }
        actions[step]()
        if key:
            self._write_stamp({**self._read_stamp(), key: getattr(self._wanted, key)})

    def _install_lock(self, step: Step, name: str, *options: str) -> None:
        """What a lock says, and nothing whose hash differs."""
        self.environment.pip(step.value, "--require-hashes", *options, "--requirement", str(self._lock(name)))

    def _lock(self, name: str) -> Path:
        return self.environment.root / LOCKS / f"{name}.txt"

    def _build_constraint(self) -> list[str]:
        """pip builds with the newest tools it finds, unless it is told which."""
        return [] if self._goal.newest else ["--build-constraint", str(self._lock("build"))]

    def _install_project(self) -> None:
        here = ["--editable", str(self.environment.root), *self._build_constraint()]
        if self._goal.newest:
            self.environment.pip(Step.PROJECT.value, "--upgrade", "--upgrade-strategy", "eager", *here)
        else:
            self._install_lock(Step.PROJECT, "run")
            self.environment.pip(Step.PROJECT.value, "--no-deps", *here)

    def _install_dev(self) -> None:
        if self._goal.newest:
            group = f"{self.environment.root / 'pyproject.toml'}:dev"
            self.environment.pip(Step.DEV.value, "--upgrade", "--upgrade-strategy", "eager", "--group", group)
        else:
            self._install_lock(Step.DEV, "dev")

    def _make_environment(self) -> None:
        self.environment.create()
        self._write_stamp({"root": self._wanted.root, "python": self._wanted.python})

    def _build_native(self) -> None:
        """pip keys its wheel cache by version alone; a cache folder per set of CMake arguments keeps builds apart."""
        cache = self.environment.pip_cache()
        reuse = cache is not None and not self._goal.rebuild
        folder = ["--cache-dir", f"{cache}/kolosal-{self._wanted.native}"] if reuse else ["--no-cache-dir"]
        self.environment.pip(
            f"{Step.NATIVE.value} ({self._goal.preset})",
            *(*BUILD_OPTIONS, *folder),
            *("--require-hashes", "--requirement", str(self._lock("native")), *self._build_constraint()),
            env=build_environment(self._cmake_args, os.environ),
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


def _pyproject(root: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - 3.11 has it; older Pythons must get as far as check_python

    try:
        return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise SetupError(f"cannot read {root / 'pyproject.toml'}: {exc}") from exc
