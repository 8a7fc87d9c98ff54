"""Measures what the Assistants API costs: a run against the same chat, a full store against an empty one, and deleting a long thread.

Run it with the environment's Python from the checkout: .venv/bin/python scripts/bench_assistants.py. The engine is the tests' fake one, so
that the daemon's own work is what is measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from bench_console import start

HELLO = {"role": "user", "content": "8:Hello"}
"""The fake engine says as many tokens as the number."""

MAX_AT_ONCE = 100


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200, help="of each measurement (default 200)")
    parser.add_argument("--threads", type=int, default=1000, help="of the full store, 20 messages each")
    parser.add_argument("--messages", type=int, default=10_000, help="of the thread that is deleted")
    options = parser.parse_args()
    with daemon() as http:
        run_against_chat(http, options.rounds)
        empty = list_and_start(http, options.rounds)
        fill(http, options.threads)
        full = list_and_start(http, options.rounds)
        for name, before, after in zip(("list messages", "start a run"), empty, full, strict=True):
            print(
                f"{name:15} p99 {before:6.1f} ms empty, {after:6.1f} ms with {options.threads} threads x 20:"
                f" {after / before:.2f} x"
            )
        delete(http, options.messages)


@contextmanager
def daemon() -> Iterator[httpx.Client]:
    """A daemon with a fake engine, and a client of it."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(Path(folder), 8, 0.0)
        try:
            with httpx.Client(base_url=f"{url}/v1", timeout=60, trust_env=False) as http:
                yield http
        finally:
            process.terminate()
            process.wait(30)


def run_against_chat(http: httpx.Client, rounds: int) -> None:
    """The same turn, streamed to its end, as a chat and as a run, in turns."""
    assistant = post(http, "/assistants", model="tiny")
    body = {"assistant_id": assistant, "stream": True, "max_completion_tokens": 8}
    chat = {"model": "tiny", "messages": [HELLO], "stream": True, "max_tokens": 8}
    took: dict[str, list[float]] = {"chat": [], "run": []}
    for _ in range(rounds):
        thread = post(http, "/threads", messages=[HELLO])
        took["chat"].append(timed(lambda: http.post("/chat/completions", json=chat)))
        took["run"].append(timed(lambda: http.post(f"/threads/{thread}/runs", json=body)))  # noqa: B023 - called at once
    of_chat, of_run = (statistics.median(each) for each in took.values())
    print(
        f"a chat of 8 tokens {of_chat:.2f} ms, a run of the same {of_run:.2f} ms: {of_run - of_chat:+.2f} ms"
    )


def list_and_start(http: httpx.Client, rounds: int) -> tuple[float, float]:
    """The 99th percentiles of listing a thread's messages and of starting a run."""
    assistant = post(http, "/assistants", model="tiny")
    listed, started = [], []
    for _ in range(rounds):
        thread = post(http, "/threads", messages=[HELLO] * 20)
        listed.append(timed(lambda: http.get(f"/threads/{thread}/messages")))  # noqa: B023 - called at once
        body = {"assistant_id": assistant, "max_completion_tokens": 1}
        started.append(timed(lambda: http.post(f"/threads/{thread}/runs", json=body)))  # noqa: B023
        while http.get(f"/threads/{thread}/runs").json()["data"][0]["status"] in ("queued", "in_progress"):
            pass
    return statistics.quantiles(listed, n=100)[-1], statistics.quantiles(started, n=100)[-1]


def fill(http: httpx.Client, threads: int) -> None:
    """Threads of 20 messages."""
    for _ in range(threads):
        post(http, "/threads", messages=[HELLO] * 20)


def delete(http: httpx.Client, messages: int) -> None:
    """Delete a long thread while another client asks for `/health`: its longest wait is what the loop was held up."""
    thread = post(http, "/threads", messages=[HELLO] * MAX_AT_ONCE)
    assistant = post(http, "/assistants", model="tiny")
    more: dict[str, Any] = {
        "assistant_id": assistant,
        "additional_messages": [HELLO] * MAX_AT_ONCE,
        "tools": [{"type": "code_interpreter"}],  # which fails at once
    }
    for _ in range(messages // MAX_AT_ONCE - 1):
        while http.post(f"/threads/{thread}/runs", json=more).status_code == 400:
            pass
    waits: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=http.base_url, trust_env=False) as other:
            while not over.is_set():
                waits.append(timed(lambda: other.get("/health")))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(1)
    usual, n_before = statistics.median(waits), len(waits)
    took = timed(lambda: http.delete(f"/threads/{thread}"))
    over.set()
    asking.join()
    print(
        f"deleting {messages} messages took {took:.0f} ms; others waited {max(waits[n_before - 1 :]):.0f} ms at most,"
        f" {usual:.1f} ms usually"
    )


def post(http: httpx.Client, path: str, **body: Any) -> str:
    """Make something; its id."""
    answer = http.post(path, json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


def timed(work: Callable[[], httpx.Response]) -> float:
    """Milliseconds until the whole answer was there."""
    begun = time.perf_counter()
    work().raise_for_status()
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
