"""Documents name what is there: files, functions, and the places that their links lead to."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("kolosal", "scripts", "tests")
    for path in (ROOT / folder).rglob("*")
]

_FULL = re.compile(r"(?<![\w/.])(?:kolosal|scripts|tests)/[\w./{},*-]*[\w}*/]")
"""A path from the root; `{a,b}` stands for several names, `*` for any."""
_SHORT = re.compile(r"`([a-z_]+/)*\w+\.py`")
"""The end of the path of a module, e.g. `memory/policy.py`."""
_WALK = re.compile(r"^\| \d+ \| (.+?) \| (.+?) \|", re.MULTILINE)
"""A step of a walk of docs/architecture.md: modules below kolosal/, and their functions."""
_LINK = re.compile(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)")


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    found = request.param
    assert isinstance(found, Path)
    return found


def test_every_path_exists(page: Path) -> None:
    paths = [each for found in _FULL.findall(page.read_text(encoding="utf-8")) for each in _spelt_out(found)]
    assert [path for path in paths if not any(ROOT.glob(path))] == []


def test_every_module_exists(page: Path) -> None:
    names = [found[0].strip("`") for found in _SHORT.finditer(page.read_text(encoding="utf-8"))]
    assert [name for name in names if not any(f"/{file}".endswith(f"/{name}") for file in FILES)] == []


def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for path, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@pytest.mark.parametrize(
    ("modules", "functions"), _WALK.findall((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
)
def test_every_step_of_a_walk_is_there(modules: str, functions: str) -> None:
    defined = {name for module in _quoted(modules) for name in _functions(ROOT / "kolosal" / module)}
    assert [name for name in _quoted(functions) if name not in defined] == []


def test_every_package_and_every_module_beside_them_is_in_the_list() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = [f"{path.parent.name}/" for path in ROOT.glob("kolosal/*/**/__init__.py")]
    modules = [path.name for path in ROOT.glob("kolosal/[!_]*.py")]
    assert [name for name in (*packages, *modules) if f"{name}`" not in text] == []


def test_the_layers_are_those_that_are_checked() -> None:
    text = " ".join((ROOT / "docs/architecture.md").read_text(encoding="utf-8").split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    drawn = {"kolosal", "kolosal.engines", "kolosal.engines.memory"}
    for contract in project["tool"]["importlinter"]["contracts"]:
        layers = " → ".join(contract.get("layers", ())).replace(" | ", ", ")
        container = contract.get("containers", ["kolosal.engines"])[0]
        if layers and container in drawn:
            assert layers.replace("kolosal.engines.", "").replace("kolosal.", "") in text
            drawn.discard(container)
    assert not drawn


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _functions(module: Path) -> Iterator[str]:
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name, body=body):
                methods = (each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
                yield from (f"{name}.{each.name}" for each in methods)


def _spelt_out(path: str) -> Iterator[str]:
    choice = re.search(r"\{([^{}]*)\}", path)
    if choice is None:
        yield path
        return
    for name in choice[1].split(","):
        yield from _spelt_out(path[: choice.start()] + name + path[choice.end() :])


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
