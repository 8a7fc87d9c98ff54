"""One daemon for all end-to-end tests, started as a user would start it, and its clients."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.helpers import DEADLINE_S, ENGINE, Daemon, add_engine

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def daemon(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon with the real model, on a port that the system chose. Told to stop, it ends with status 0."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "config.yaml").write_text(
        "engines: {idle_ttl_s: 3600}"
    )  # other tests may come between for minutes
    running = Daemon.start(folder, "--port", "0", "--model", f"{ENGINE}={smollm2.absolute()}")
    try:
        running.wait_until_ready(ENGINE)
        yield running
        assert running.stop() == 0, running.log
        assert "daemon.stopped" in running.log
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        running.process.wait(DEADLINE_S)


@pytest.fixture
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    """A plain client of the daemon. Engines that the test added are removed after it."""
    with httpx.Client(base_url=daemon.url, timeout=DEADLINE_S, trust_env=False) as client:
        yield client
        for engine in client.get("/engines").json()["engines"]:
            if engine["engine_id"] != ENGINE:
                client.delete(f"/engines/{engine['engine_id']}")


@pytest.fixture
def sdk(daemon: Daemon) -> Iterator[openai.OpenAI]:
    """The official client, as the documentation says to set it up."""
    with openai.OpenAI(
        base_url=f"{daemon.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S
    ) as client:
        yield client


@pytest.fixture
async def async_sdk(daemon: Daemon) -> AsyncIterator[openai.AsyncOpenAI]:
    """The same for many requests at once; one that finds the queue full tries again, as it does for everybody."""
    async with openai.AsyncOpenAI(
        base_url=f"{daemon.url}/v1", api_key="none", max_retries=10, timeout=10 * DEADLINE_S
    ) as client:
        yield client


@pytest.fixture
def tiny(http: httpx.Client, tiny_gguf: Path) -> str:
    """A second engine, whose tokens are bytes. It guesses nothing and computes everything in 32 bits, which flash attention does
    not, so that each of its answers repeats exactly."""
    exact = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": "off"}
    add_engine(http, "tiny", tiny_gguf, n_ctx=2048, speculation=False, **exact)
    return "tiny"


@pytest.fixture
def cli(daemon: Daemon, tmp_path: Path) -> Cli:
    """Runs a command line in a process: `cli("ps", input="")`."""

    def run(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:  # noqa: A002 - as subprocess calls it
        return subprocess.run(
            [sys.executable, "-m", "kolosal", *arguments],
            input=input,
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE_S,
            cwd=tmp_path,
            env={**daemon.environment, "KOLOSAL_PORT": daemon.url.rpartition(":")[2]},
        )

    return run
