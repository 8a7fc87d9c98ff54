"""A1: model paths that lead out of the folders models come from, on every route that takes a path or a name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import FakeEngine, app_with, http_client
from tests.http.test_daemon import daemon
from tests.tiny_gguf import write_tiny_gguf

Seen = Callable[[str], None]

opened: list[str] | None = None
"""Paths that were opened or listed, while somebody looks."""


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if isinstance(arguments[0] if arguments else 0, int):
        return  # a descriptor, whose path was told before
    if opened is not None and event in ("open", "os.listdir", "os.scandir"):
        opened.append(
            os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else str(arguments[0])
        )


sys.addaudithook(_note)  # for as long as the process lives: Python takes none back


@contextmanager
def watching() -> Iterator[list[str]]:
    """What is opened meanwhile, by any thread."""
    global opened  # noqa: PLW0603 - an audit hook has no other place
    found: list[str] = []
    opened = found
    try:
        yield found
    finally:
        opened = None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one model, beside which there is another that nobody may load."""
    root = tmp_path / "models"
    (root / "sub").mkdir(parents=True)
    write_tiny_gguf(root / "a.gguf")
    write_tiny_gguf(tmp_path / "secret.gguf")
    if sys.platform != "win32":
        (root / "out.gguf").symlink_to(tmp_path / "secret.gguf")
        (root / "out").symlink_to(tmp_path)
        (root / "null.gguf").symlink_to("/dev/null")
        (root / "nowhere.gguf").symlink_to(tmp_path / "no-such.gguf")
    return root


def outside(root: Path) -> list[str]:
    """Paths that are not in the folder, whatever they look like; pairs of one that is there and one that is not."""
    return [
        str(root.parent / "secret.gguf"), str(root.parent / "no-such.gguf"), f"{root}/../secret.gguf", f"{root}/../no-such.gguf",
        f"{root}/sub/../../secret.gguf", f"{root}/sub/../a.gguf", f"{root}//../secret.gguf", f"{root}/./../secret.gguf",
        f"{root}x/secret.gguf", "../../etc/passwd", "../../../../../../../../etc/passwd", "/etc/passwd", "/etc/no-such", "/",
        "/proc/self/mem", "/proc/self/environ", "/dev/zero", "/dev/stdin", "/dev/fd/0", "~/a.gguf", "~root/a.gguf", "$HOME/a.gguf",
        r"\\host\share\a.gguf", "//host/share/a.gguf", r"\\?\C:\a.gguf", r"\\.\pipe\a", "C:a.gguf", r"C:\a.gguf", "NUL", "CON.gguf",
        "COM1", "AUX.gguf", "file:///etc/passwd", "https://example.com/a.gguf", f"{root}/..%2fsecret.gguf", "%2e%2e/secret.gguf",
        f"{str(root).upper()}/a.gguf", f"{root}/\uff0e\uff0e/secret.gguf", f"{root}\u2215a.gguf", f"{root}/a.gguf/../../secret.gguf",
        f"{root}/out.gguf", f"{root}/out", f"{root}/out/secret.gguf", f"{root}/out/no-such.gguf", f"{root}/nowhere.gguf",
        f"{root}/null.gguf", "sha256:../../etc/passwd", "sha256-" + "a" * 64, "", " ", ".", "..", "a.gguf",
        f"{root}/../{root.name}/../secret.gguf", "/" + "x/" * 3000,
    ]  # fmt: skip


ROUTES: dict[str, Callable[[str], tuple[str, str, dict[str, Any]]]] = {
    "POST /engines": lambda path: ("POST", "/engines", {"engine_id": "new", "model_path": path}),
    "POST /engines lazily": lambda path: (
        "POST", "/engines", {"engine_id": "new", "model_path": path, "load_immediately": False}
    ),
    "PUT /engines/new": lambda path: ("PUT", "/engines/new", {"model_path": path, "load_immediately": False}),
    "PUT /engines/fake": lambda path: ("PUT", "/engines/fake", {"model_path": path, "load_immediately": False}),
    "POST /v1/engines": lambda path: ("POST", "/v1/engines", {"model_id": "new", "model_path": path}),
    "POST /engines/estimate": lambda path: ("POST", "/engines/estimate", {"engine_id": "x", "model_path": path}),
}  # fmt: skip
"""Requests with a path of a model."""

NAMED = (
    "/v1/chat/completions",
    "/v1/completions",
    "/api/show",
    "/api/generate",
    "/api/chat",
    "/tokenize",
    "/v1/embeddings",
)
"""Requests with a name of one, which is never a path."""


def is_within(path: str, root: Path) -> bool:
    return Path(path).is_relative_to(root) and ".." not in Path(path).parts


def foreign(found: list[str], root: Path) -> list[str]:
    """What was opened outside, less what Python reads of itself while it imports."""
    own = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
    return [path for path in found if not is_within(path, root) and not path.startswith(own)]


async def answers(root: Path, route: str, paths: list[str]) -> tuple[dict[str, httpx.Response], list[str]]:
    """What a route says to each path, and what was opened."""
    app = app_with(FakeEngine("fake"), model_roots=(str(root),), api_key="a-key-of-16-letters")
    async with http_client(app, {"x-api-key": "a-key-of-16-letters"}) as http:
        await http.get("/engines")  # what is imported late is imported now
        with watching() as found:
            answered = {}
            for path in paths:
                verb, where, body = ROUTES[route](path)
                answered[path] = await http.request(verb, where, json=body)
    return answered, found


@pytest.mark.fault("A1")
@pytest.mark.parametrize("route", ROUTES)
async def test_nothing_outside_is_opened_and_all_answers_are_alike(
    root: Path, route: str, seen: Seen
) -> None:
    answered, found = await answers(root, route, outside(root))
    errors: dict[str, set[str]] = {}
    for path, answer in answered.items():
        assert answer.status_code in (400, 403), path
        error: dict[str, Any] = answer.json()["error"]
        errors.setdefault(error["code"] or error["message"], set()).add(error["message"])
    assert foreign(found, root) == []
    denied = errors["model_path_access_denied"]
    assert len(denied) == 1  # the same words, whether there is such a file or not
    seen(
        f"{len(answered)} paths, {sum('denied' in str(a.json()) for a in answered.values())} in the same words"
    )


@pytest.mark.fault("A1")
@pytest.mark.parametrize("route", ROUTES)
async def test_a_draft_model_is_confined_as_well(root: Path, route: str) -> None:
    verb, where, body = ROUTES[route](str(root / "a.gguf"))
    app = app_with(FakeEngine("fake"), model_roots=(str(root),))
    messages = set()
    async with http_client(app) as http:
        with watching() as found:
            for path in outside(root)[:6]:
                answer = await http.request(verb, where, json=body | {"draft_model_path": path})
                error = answer.json()["error"]
                assert (answer.status_code, error["param"]) == (400, "draft_model_path")
                messages.add(error["message"])
    assert foreign(found, root) == []
    assert len(messages) == 1


@pytest.mark.fault("A1")
@pytest.mark.parametrize("path", NAMED)
async def test_a_name_is_no_path(root: Path, path: str) -> None:
    extra = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "content": "x", "input": "x"}
    async with http_client(app_with(FakeEngine("fake"), model_roots=(str(root),))) as http:
        statuses = set()
        with watching() as found:
            for name in outside(root):
                if name.strip():
                    statuses.add((await http.post(path, json={"model": name, **extra})).status_code)
    assert statuses <= {400, 404}
    assert foreign(found, root) == []


@pytest.mark.fault("A1")
@pytest.mark.parametrize(
    "digest", ["sha256:../../etc/passwd", "sha256:" + "g" * 64, "../../etc/passwd", "..%2f..%2fetc%2fpasswd"]
)
async def test_a_digest_is_no_path(root: Path, digest: str) -> None:
    async with http_client(app_with(FakeEngine("fake"), model_roots=(str(root),))) as http:
        with watching() as found:
            for verb in ("HEAD", "POST"):
                answer = await http.request(verb, f"/api/blobs/{digest}", content=b"x")
                assert answer.status_code in (400, 404, 501)
    assert foreign(found, root) == []


@pytest.mark.fault("A1")
@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "..\\app.py", "x%00.css"]
)
async def test_files_of_the_documentation_are_those_only(root: Path, name: str) -> None:
    async with http_client(app_with()) as http:
        await http.get("/docs")
        with watching() as found:
            assert (await http.get(f"/docs/{name}")).status_code in (400, 404)
    assert foreign(found, root) == []


@pytest.mark.fault("A1")
async def test_what_is_inside_is_opened_and_seen(root: Path) -> None:
    """The watch sees what it must see."""
    answered, found = await answers(
        root, "POST /engines lazily", [str(root / "a.gguf"), str(root.parent / "secret.gguf")]
    )
    assert [answer.status_code for answer in answered.values()] == [201, 400]
    assert str(root / "a.gguf") in found


@pytest.mark.fault("A1")
@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("how", ["a link that was swapped", "a folder that is not allowed any more"])
def test_folders_are_checked_at_every_load(root: Path, tmp_path: Path, how: str) -> None:
    """Of an engine that was added when all was well, and is there again after a restart."""
    link = root / "link.gguf"
    link.symlink_to(root / "a.gguf")
    kept: dict[str, Any] = {
        "keep_engines": True,
        "state_dir": str(tmp_path / "state"),
        "model_roots": str(root),
    }
    with daemon(**kept) as (process, url):
        body = {"engine_id": "a", "model_path": str(link), "load_immediately": False}
        assert httpx.post(f"{url}/engines", json=body).status_code == 201
        prompt = {"model": "a", "prompt": "1:", "max_tokens": 1}
        assert httpx.post(f"{url}/v1/completions", json=prompt).status_code == 200
        httpx.post(f"{url}/engines/a/unload")
        if how == "a link that was swapped":
            link.unlink()
            link.symlink_to(tmp_path / "secret.gguf")
        else:
            process.terminate()
            process.wait()
            kept["model_roots"] = str(root / "sub")
        if process.poll() is None:
            shown = httpx.post(f"{url}/api/show", json={"model": "a"}).json()
            assert shown["model_info"]["general.architecture"] == "fake"  # as the worker said, not the file
            assert_outside(httpx.post(f"{url}/v1/completions", json=prompt))
            process.terminate()
            process.wait()
    with daemon(**kept) as (_, url):
        assert_outside(httpx.post(f"{url}/v1/completions", json=prompt))


def assert_outside(refused: httpx.Response) -> None:
    assert refused.status_code == 422
    assert "is not in a folder that models may be loaded from" in refused.json()["error"]["message"]
