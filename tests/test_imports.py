"""What may be imported where: the daemon stays light, and hostile files are read in workers only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kolosal"


def imported_by(module: str) -> set[str]:
    """The top-level modules a fresh interpreter has after importing `module`."""
    script = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    # coverage would import things of its own
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        ).stdout.split()
    )


@pytest.mark.parametrize(
    "module", ["kolosal.engines.registry", "kolosal.app", "kolosal.cli", "kolosal.daemon"]
)
def test_daemon_loads_nothing_native(module: str) -> None:
    assert not imported_by(module) & {"llama_cpp", "numpy", "jinja2"}


@pytest.mark.parametrize(
    "module",
    [
        "kolosal.engines.worker.loop",
        "kolosal.engines.worker.preprocessor",
        "kolosal.engines.worker.schedule.scheduler",
        "kolosal.engines.worker.__main__",
        "tests.fake_worker.__main__",
    ],
)
def test_worker_starts_without_what_it_does_not_need(module: str) -> None:
    imported = imported_by(module)

    assert not imported & {"asyncio", "jinja2", "llama_cpp", "numpy", "starlette", "uvicorn", "httpx"}


def test_worker_with_a_model_has_no_more_than_it_needs() -> None:
    """Each of these costs every engine some MiB. llama-cpp-python's own classes bring the last three."""
    imported = imported_by("kolosal.engines.worker.__main__, kolosal.engines.worker.llamacpp.backend")

    assert imported >= {"llama_cpp", "numpy"}
    assert not imported & {
        "asyncio",
        "llguidance",
        "diskcache",
        "multiprocessing",
        "sqlite3",
    }


def test_daemon_opens_no_database_and_joins_no_cluster_before_it_must() -> None:
    later = {"sqlalchemy", "aiosqlite", "alembic", "asyncpg", "sqlite3", "ray", "kolosal.cluster.ray_cluster"}
    assert not imported_by("kolosal.daemon") & later


def test_daemon_asks_no_gpu_before_it_must() -> None:
    assert not imported_by("kolosal.daemon") & {"pynvml", "rich", "httpx", "opentelemetry"}


@cache
def imports_of(path: Path) -> set[str]:
    """The top-level modules a source file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def files_that_import(module: str) -> set[str]:
    return {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if module in imports_of(path)
    }


@pytest.mark.parametrize(
    "module",
    [
        "schedule/scheduler",
        "schedule/kv_cache",
        "schedule/sequence",
        "detokenize",
        "sampler_chain",
        "schedule/kv_pool",
    ],
)
def test_policy_of_the_worker_is_pure(module: str) -> None:
    imported = imports_of(PACKAGE / "engines" / "worker" / f"{module}.py")

    assert not imported & {
        "asyncio",
        "os",
        "time",
        "datetime",
        "threading",
        "logging",
        "random",
        "subprocess",
    }


def test_templates_are_rendered_in_one_place() -> None:
    """CVE-2024-34359 and CVE-2026-5760: a second, unsandboxed environment for the template of a model file."""
    mentions = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "jinja2" in path.read_text(encoding="utf-8")
    }

    assert mentions == {"engines/worker/templates/jinja.py"}


def test_process_that_renders_has_jinja_and_little_else() -> None:
    imported = imported_by("kolosal.engines.worker.templates.jinja") - sys.stdlib_module_names

    assert {name for name in imported if name[0] != "_"} == {"kolosal", "jinja2", "markupsafe"}


@pytest.mark.parametrize("module", ["pickle", "marshal", "shelve", "dill"])
def test_nothing_is_pickled(module: str) -> None:
    assert files_that_import(module) == set()


@pytest.mark.parametrize("module", ["llama_cpp", "numpy"])
def test_native_libraries_are_imported_by_workers_only(module: str) -> None:
    elsewhere = {name for name in files_that_import(module) if not name.startswith("engines/worker/")}
    assert elsewhere <= {"retrieval/ranking.py"}  # which does so when something is searched


def test_no_class_has_the_name_of_another() -> None:
    classes = [
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]

    assert [name for name in set(classes) if classes.count(name) > 1] == []
