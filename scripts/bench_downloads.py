"""How fast a model is fetched on this machine, as a ratio to curl, and how much memory that takes for files of two sizes.

A server on loopback sends files of random bytes by sendfile. Both are timed until the disk has the file (fsync); the fetcher
verifies its SHA-256 besides. Whoever is first changes with each round; the table has medians.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import os
import shutil
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from cli import main_guard

from kolosal.downloads.messages import FetchRequest
from kolosal.downloads.plan import DownloadPlan, PlannedFile
from kolosal.native.preflight import SetupError


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench_downloads.py", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the larger file (default 1000)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if shutil.which("curl") is None:
        raise SetupError("curl is needed to compare with")
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as server:
        for size in (arguments.megabytes // 10, arguments.megabytes):
            _compare(Path(folder), server.server_address[1], size, arguments.rounds)
    return 0


def _compare(folder: Path, port: int, megabytes: int, rounds: int) -> None:
    name = f"{megabytes}.gguf"
    digest = _write(folder / name, megabytes)
    url = f"http://127.0.0.1:{port}/{name}"
    by_curl: list[float] = []
    by_us: list[float] = []
    peak = 0
    for number in range(2 * rounds):
        if number % 4 in (0, 3):
            by_curl.append(megabytes / _curl(url, folder))
        else:
            took_s, memory = _fetch(url, folder, megabytes, digest)
            by_us.append(megabytes / took_s)
            peak = max(peak, memory)
    curl, ours = statistics.median(by_curl), statistics.median(by_us)
    print(
        f"{megabytes:6} MB  curl {curl:5.0f} MB/s  fetcher {ours:5.0f} MB/s  ratio {ours / curl:.2f}  memory {peak / 1e6:.0f} MB"
    )


def _curl(url: str, folder: Path) -> float:
    target = folder / "by-curl"
    began = time.perf_counter()
    subprocess.run(["curl", "--silent", "--fail", "--output", str(target), url], check=True)  # noqa: S607
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    took_s = time.perf_counter() - began
    target.unlink()
    return took_s


def _fetch(url: str, folder: Path, megabytes: int, digest: str) -> tuple[float, int]:
    """Seconds of the fetching itself, in a process that is up, and the most memory that the process had, in bytes."""
    target = folder / "fetched.gguf"
    file = PlannedFile(url, str(target), megabytes * 1_000_000, digest)
    plan = DownloadPlan("bench", "file", "bench", "", (file,), str(target))
    request = orjson.dumps(FetchRequest(plan, "http://127.0.0.1", ("127.0.0.1",)))
    program = Path(__file__).with_name("bench_downloads_fetcher.py")
    done = subprocess.run([sys.executable, str(program)], input=request, stdout=subprocess.PIPE, check=True)
    took_s, peak = done.stdout.split()
    target.unlink()
    return float(took_s), int(peak)


def _write(path: Path, megabytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(megabytes):
            block = os.urandom(1_000_000)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


class _Files(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        with (self.folder / Path(self.path).name).open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def _server(folder: Path) -> Any:
    handler = type("Files", (_Files,), {"folder": folder})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    main_guard(main)
