"""For `bench_peers.py`: servers that a comparison starts: ours and llama-server, each with the same limits, and their certain end."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from peers_rounds import Server

from kolosal.bench.client import Target
from kolosal.bench.errors import BenchError
from kolosal.bench.processes import end_tree, free_port

N_CTX = 16_384
"""Tokens of one request in our engine; llama-server lets one request have the whole cache."""
READY_S = 300.0
"""Bounds the wait for a server to start and to load its model."""
POLL_INTERVAL_S = 0.1
STOP_S = 15.0
"""A server that was asked to stop and has not is killed after this."""
LOG_CHARS = 2000
"""The end of a failed server's output, as far as it is shown."""

NAME = "bench"
"""Of our engine; llama-server takes any."""

NGRAM_FLAGS = (
    *("--spec-type", "ngram-mod"),
    *("--spec-ngram-mod-n-match", "8", "--spec-ngram-mod-n-min", "4", "--spec-ngram-mod-n-max", "64"),
)
"""The best of llama-server's n-gram modes at `repeat_text` with SmolLM2; docs/benchmarks.md has what was tried."""

_FOREIGN_SETTINGS = ("KOLOSAL_", "LLAMA_ARG_")
"""Variables by which the caller's environment would change a server."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What both servers are given alike."""

    model: Path
    threads: int
    parallel: int
    kv_tokens: int


SPLIT_N_CTX = 4096
"""Tokens of one request where each slot of llama-server has cells of its own."""


def peer_argv(binary: Path, limits: Limits, port: str, *, unified: bool = True) -> list[str]:
    """llama-server with these limits; what is not said is its default."""
    flags = {
        "--model": limits.model.as_posix(),
        "--host": "127.0.0.1",
        "--port": port,
        "--parallel": limits.parallel,
        "--ctx-size": limits.kv_tokens if unified else SPLIT_N_CTX * limits.parallel,
        "--threads": limits.threads,
    }
    cells = ["--kv-unified"] if unified else ["--no-kv-unified"]
    return [binary.as_posix(), *(str(word) for pair in flags.items() for word in pair), *cells]


def engine_body(limits: Limits, *, speculation: bool) -> dict[str, object]:
    """What `POST /engines` is asked for. Speculation is the default, so only its absence is said."""
    parameters: dict[str, object] = {
        "n_ctx": min(N_CTX, limits.kv_tokens),
        "n_parallel": limits.parallel,
        "kv_pool_tokens": limits.kv_tokens,
        "n_threads": limits.threads,
        "n_threads_batch": limits.threads,
    }
    if not speculation:
        parameters["speculation"] = False
    return {"engine_id": NAME, "model_path": str(limits.model), "loading_parameters": parameters}


@contextmanager
def peer_server(
    binary: Path, limits: Limits, log: Path, flags: Sequence[str] = (), *, unified: bool = True
) -> Iterator[Server]:
    """llama-server, loaded."""
    port = free_port()
    load_command = shlex.join([*peer_argv(binary, limits, "{port}", unified=unified), *flags])
    argv = [*peer_argv(binary, limits, str(port), unified=unified), *flags]
    with running(argv, f"http://127.0.0.1:{port}/health", log) as pid:
        target = Target(url=f"http://127.0.0.1:{port}/v1", model=NAME, start_command=load_command)
        yield Server(target, pid)


@contextmanager
def our_daemon(limits: Limits, folder: Path, *, speculation: bool) -> Iterator[Server]:
    """Our daemon with one engine, loaded. `folder` gets its log and a configuration that is not the user's."""
    port, config = free_port(), folder / "config.yaml"
    config.write_text("engines: {keep: false}\n", encoding="utf-8")  # the next run adds the same name
    argv = [sys.executable, "-m", "kolosal", "serve", "--port", str(port), "--config", str(config)]
    root = f"http://127.0.0.1:{port}"
    with running(argv, f"{root}/v1/health", folder / "daemon.log") as pid:
        body = engine_body(limits, speculation=speculation)
        answer = httpx.post(f"{root}/engines", json=body, timeout=READY_S, trust_env=False)
        if answer.is_error:
            raise BenchError(f"our daemon does not load the model: {answer.text}")
        yield Server(Target(url=f"{root}/v1", model=NAME), pid)


@contextmanager
def running(argv: Sequence[str], health_url: str, log: Path) -> Iterator[int]:
    """A process that answers 2xx at `health_url`; its id. Ended with its children in any case.

    Raises:
        BenchError: it cannot be started, ends, or does not answer in time.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_SETTINGS)}
    with log.open("wb") as out:
        try:
            child = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        except OSError as exc:
            raise BenchError(f"cannot start {argv[0]}: {exc.strerror or exc}") from exc
        try:
            _wait_ready(child, health_url, log)
            yield child.pid
        finally:
            end_tree(child.pid, STOP_S)
            child.wait()


def _wait_ready(child: subprocess.Popen[bytes], health_url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while child.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(health_url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(POLL_INTERVAL_S)
    words = log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARS:]
    raise BenchError(f"a server did not become ready. The end of what it said:\n{words}")
