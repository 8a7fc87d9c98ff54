"""What a first start says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kolosal.greeting import greeting
from tests.http.test_daemon import daemon
from tests.settings import settings_of


def first_lines(process: subprocess.Popen[str]) -> str:
    """All that it said by the time it has ended."""
    process.terminate()
    assert process.stdout is not None
    return process.stdout.read()


def test_a_daemon_without_an_engine_says_how_to_get_one() -> None:
    with daemon() as (process, url):
        said = first_lines(process)
    assert f"{url}/docs" in said
    assert "kolosal run model.gguf" in said


def test_one_with_an_engine_says_its_address_only(tmp_path: Path) -> None:
    with daemon(models=[{"id": "a", "path": str(tmp_path / "a.gguf")}]) as (process, _):
        assert first_lines(process) == ""


def test_it_is_one_screen_with_where_things_are() -> None:
    settings = settings_of(log_file="/var/log/k.log")
    text = greeting(settings, "http://127.0.0.1:8080", Path("/state"), [Path("/models"), Path("/more")])
    assert all(
        word in text
        for word in ("http://127.0.0.1:8080/docs", "/models", "/more", "/state", "/var/log/k.log")
    )
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines())) <= 80


def test_an_address_that_is_all_of_them_is_one_that_a_browser_takes() -> None:
    assert "http://127.0.0.1:9/docs" in greeting(settings_of(), "http://0.0.0.0:9", None, [])
    assert "http://[::1]:9/docs" in greeting(settings_of(), "http://[::]:9", None, [])
