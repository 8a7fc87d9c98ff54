"""One Chromium and one daemon for all tests of the console. Where there is no Chromium, they are skipped by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.helpers import DEADLINE_S, ENGINE, Daemon
from tests.fake_hub import FakeHub
from tests.file_server import ServedFile

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""What Chromium is called on various systems."""

MARKUP = '<img src=x onerror=document.title="caught">'
"""A name that is markup: no `/`, `?` or `#`, so an engine may have it."""

DOCS = Path(__file__).parents[2] / "docs" / "console"
"""Where docs/console.md has its pictures; made anew with KOLOSAL_CONSOLE_PICTURES=1."""


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> None:
    """The browser starts and ends processes as it likes while it lives; `browser` looks at its end whether all are gone."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium. At its end neither it nor a worker of a daemon is left."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    before = set(psutil.Process().children(recursive=True))
    # as root, which containers are, Chromium has no sandbox; the pages are our own
    arguments = ["--no-sandbox"] if sys.platform != "win32" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=DEADLINE_S)
    assert not alive, [process.cmdline() for process in alive]


class Served:
    """A daemon that can be started again at the same address, with the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon = self._start("0")
        self.url = self.daemon.url

    def _start(self, port: str) -> Daemon:
        started = Daemon.start(self.folder, "--port", port)
        started.wait_until_listening()
        return started

    def restart(self) -> None:
        """End it and start it again: for a moment nobody answers."""
        self.daemon.stop()
        self.daemon = self._start(self.url.rpartition(":")[2])

    def http(self) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=DEADLINE_S, trust_env=False)


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[Served]:
    running = Served(folder)
    try:
        yield running
        assert running.daemon.stop() == 0, running.daemon.log
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.daemon.process.kill()
        running.daemon.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Served]:
    with _serving(tmp_path_factory.mktemp("console")) as running:
        yield running


@pytest.fixture
def served(_kept: Served, smollm2: Path) -> Served:
    """A daemon with two engines: the real model, which is loaded, and one whose name is markup, which is not."""
    with _kept.http() as http:
        path = smollm2.absolute().as_posix()
        for name, options in ((ENGINE, {}), (MARKUP, {"load_immediately": False, "n_ctx": 1024})):
            added = http.post("/engines", json={"engine_id": name, "model_path": path, **options})
            assert added.status_code in (201, 409), added.text
        assert http.post(f"/engines/{ENGINE}/load").status_code == 200
    return _kept


@pytest.fixture
def empty_home(tmp_path: Path, browser: Any) -> Iterator[Served]:
    """A daemon as it comes: no engine, no key."""
    with _serving(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def hub(smollm2: Path) -> Iterator[FakeHub]:
    """A hub with one repository: the real model, slowly, and a larger file that is none."""
    with FakeHub() as server:
        real = ServedFile(smollm2.read_bytes(), bytes_per_s=8_000_000)
        files = {
            "smollm2-135m-instruct-q4_1.gguf": real,
            "smollm2-135m-instruct-q8_0.gguf": ServedFile(bytes(145_000_000)),
        }
        server.add_files("HuggingFaceTB/SmolLM2-135M-Instruct-GGUF", files).downloads = 51_342
        yield server


@pytest.fixture
def hub_home(tmp_path: Path, browser: Any, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A daemon as it comes, whose hub is ours."""
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}.items():
        monkeypatch.setenv(name, value)
    with _serving(tmp_path) as running:
        yield running
    hub.cdn.settle()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the console: `open_page(served, "chat", dark=True)`. Whatever goes wrong in a page fails the test."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def opened(daemon: Served, view: str = "engines", *, dark: bool = False, width: int = 1280) -> Any:
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 680}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(DEADLINE_S * 1000)
        own = (daemon.url, "blob:", "data:")
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if _is_wrong(said) else None)
        page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url))
        page.goto(f"{daemon.url}/ui#/{view}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def _is_wrong(said: Any) -> bool:
    """Refusals and a daemon that is away are what some tests are about: Chromium notes each."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    folder = tmp_path_factory.mktemp("axe")
    for file in (Path(__file__).parent / "js").iterdir():
        shutil.copy(file, folder)
    npm = shutil.which("npm", path=str(Path(sys.executable).parent)) or "npm"
    subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def picture() -> Callable[[Any, str], None]:
    """Makes a picture for docs/console.md where that is asked for."""

    def take(page: Any, name: str) -> None:
        if os.environ.get("KOLOSAL_CONSOLE_PICTURES"):
            DOCS.mkdir(exist_ok=True)
            page.screenshot(path=str(DOCS / f"{name}.png"), scale="css")

    return take
