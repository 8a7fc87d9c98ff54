"""What the way through Ray costs: the same model on this machine, here and behind a Ray actor, asked in turns.

    .venv/bin/python scripts/bench_cluster.py --model models/tiny.gguf --threads 1 --rounds 15

Needs the extra `cluster`. Starts a Ray cluster of one node, and a daemon that is its head. Streams alternate between the two engines,
so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import orjson
from cli import main_guard

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACES = ("local", "ray")


class Stream(NamedTuple):
    """One answer."""

    first_ms: float
    tokens_per_s: float
    """From the first token on."""


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/bench_cluster.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--model", required=True, help="a .gguf file")
    parse.add_argument("--threads", type=int, default=1, help="threads of each engine (default: %(default)s)")
    parse.add_argument("--rounds", type=int, default=15, help="streams of each engine (default: %(default)s)")
    parse.add_argument("--tokens", type=int, default=128, help="tokens of an answer (default: %(default)s)")
    return parse


def stream(http: httpx.Client, engine_id: str, number: int, n_tokens: int) -> Stream:
    """One answer that is as long as it may be."""
    body = {
        "model": engine_id,
        "prompt": f"Chapter {number}. It was a day like any other when",
        "max_tokens": n_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    started, times = time.perf_counter(), []
    with http.stream("POST", "/v1/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = orjson.loads(line[6:])
                if "error" in event:
                    raise SystemExit(f"{engine_id}: {event['error']['message']}")
                times.append(time.perf_counter())
    return Stream((times[0] - started) * 1000, (n_tokens - 1) / (times[-1] - times[0]))


def measure(url: str, options: argparse.Namespace) -> dict[str, list[Stream]]:
    """The streams of each place."""
    found: dict[str, list[Stream]] = {place: [] for place in PLACES}
    with httpx.Client(base_url=url, timeout=300) as http:
        for place in PLACES:
            body = {"engine_id": place, "model_path": str(Path(options.model).absolute()), "placement": place}
            answer = http.post(
                "/engines",
                json={
                    **body,
                    "n_threads": options.threads,
                    "n_ctx": 2048,
                    "idle_ttl_s": 0,
                    "speculation": False,
                },
            )
            if answer.is_error:
                raise SystemExit(answer.text)
            stream(http, place, 0, options.tokens)
        for number in range(1, options.rounds + 1):
            for place in PLACES if number % 2 else reversed(PLACES):
                found[place].append(stream(http, place, number, options.tokens))
    return found


def table(found: dict[str, list[Stream]]) -> str:
    """Medians, and what Ray costs: of each round by itself, so that what slows one down slows both."""
    rows = [f"{'':8}{'first token, ms':>18}{'tokens/s':>12}"]
    for place, streams in found.items():
        first = statistics.median(each.first_ms for each in streams)
        speed = statistics.median(each.tokens_per_s for each in streams)
        rows.append(f"{place:8}{first:18.1f}{speed:12.1f}")
    pairs = list(zip(found["local"], found["ray"], strict=True))
    ratio = statistics.median(there.tokens_per_s / here.tokens_per_s for here, there in pairs)
    later = statistics.median(there.first_ms - here.first_ms for here, there in pairs)
    return "\n".join([*rows, f"{'ray':8}{later:+15.1f} ms{ratio:11.3f}x"])


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - an extra

    node = {"num_cpus": 8, "object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        with tempfile.TemporaryDirectory() as home:
            env = {**os.environ, "KOLOSAL_STATE_DIR": home, "KOLOSAL_KEEP_ENGINES": "false"}
            command = [sys.executable, "-m", "kolosal", "serve", "--port", "0", "--cluster", cluster.address]
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, encoding="utf-8") as daemon:
                try:
                    line = daemon.stdout.readline() if daemon.stdout else ""
                    print(table(measure(line.rpartition(" ")[2].strip(), options)))
                finally:
                    daemon.terminate()
    finally:
        cluster.shutdown()
    return 0


if __name__ == "__main__":
    main_guard(main)
