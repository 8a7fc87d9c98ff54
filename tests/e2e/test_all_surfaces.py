"""One registry, every protocol: a real daemon and a real worker process, whose tokens are bytes and whose words are given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.helpers import DEADLINE_S
from tests.e2e.surfaces import SURFACES, assistants
from tests.http.test_daemon import daemon
from tests.tiny_gguf import write_tiny_gguf

WORDS = "漢字 🤔 é שלום 👍🏽"
"""Every character takes several tokens."""


def add(client: httpx.Client, folder: Path, engine_id: str, **parameters: int) -> None:
    """Add an engine over HTTP."""
    path = folder / f"{engine_id}.gguf"
    write_tiny_gguf(path)
    added = client.post(
        "/engines", json={"engine_id": engine_id, "model_path": str(path), "n_ctx": 8192, **parameters}
    )
    assert added.status_code == 201, added.text


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon with one engine."""
    with daemon() as (_, url):
        with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as client:
            add(client, tmp_path_factory.mktemp("models"), "one")
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as client:
        yield client


def test_x01_an_added_engine_is_usable_by_every_protocol_at_once(http: httpx.Client, tmp_path: Path) -> None:
    add(http, tmp_path, "added")

    said = {name: ask(http, "added", f"<say>{name}</say>") for name, ask in SURFACES.items()}

    assert said == {name: name for name in SURFACES}
    assert http.delete("/engines/added").status_code == 200


def test_a17_an_engine_without_a_model_answers_on_every_surface(http: httpx.Client) -> None:
    added = http.post("/engines", json={"engine_id": "echo", "backend": "echo"})
    assert (added.status_code, added.json()["backend"]) == (201, "echo"), added.text

    surfaces = {**SURFACES, "assistants": assistants}
    said = {name: ask(http, "echo", f"{name}: {WORDS}") for name, ask in surfaces.items()}

    assert said == {name: f"{name}: {WORDS}" for name in surfaces}
    assert http.delete("/engines/echo").status_code == 200


def test_x02_requests_of_many_protocols_do_not_mix(http: httpx.Client) -> None:
    jobs = [(name, f"{name} {number} " + "abc" * 9) for number in range(3) for name in SURFACES]

    with ThreadPoolExecutor(len(SURFACES)) as pool:
        said = [*pool.map(lambda job: SURFACES[job[0]](http, "one", f"<say>{job[1]}</say>"), jobs)]

    assert said == [words for _, words in jobs]


@pytest.mark.parametrize("name", SURFACES)
def test_x04_characters_are_whole_everywhere(http: httpx.Client, name: str) -> None:
    assert SURFACES[name](http, "one", f"<say>{WORDS}</say>") == WORDS


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_x05_streams_are_finished_when_the_daemon_is_told_to_stop(tmp_path: Path) -> None:
    words = "a sentence of some length"
    with daemon("step_s=0.02") as (process, url):
        with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as client:
            add(client, tmp_path, "slow")
            body = {"prompt": f"<say>{words}</say>"}
            with client.stream("POST", "/chat/stream", json=body) as answer:
                text = answer.iter_text()
                begun = next(text)
                process.terminate()
                whole = begun + "".join(text)
        status = process.wait(DEADLINE_S)

    assert (whole, status) == (words + "[[END]]", 0)
