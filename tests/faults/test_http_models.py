"""G1, G2: model files that are cut short or corrupt, added over HTTP: refused in a moment, and no worker sees them."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from kolosal.engines.memory.model_files import read_shape
from kolosal.errors import ModelFileError
from tests.fakes import FakeEngine, app_with, http_client
from tests.faults.sockets import MIB, rss
from tests.gguf_files import corrupt, gguf
from tests.http.test_daemon import daemon, wait_for
from tests.tiny_gguf import write_tiny_gguf

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]

MAX_CPU_S = 1.0

MAX_BYTES = 64 * MIB

CUT = {what: data for what, data in corrupt() if "cut off" in what or "missing" in what}
WRONG = {what: data for what, data in corrupt() if what not in CUT}


def cost_of(path: Path) -> tuple[float, int, bool]:
    """Seconds of processor time and bytes of memory that a header takes, and whether it was refused."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        read_shape(path)
        refused = False
    except ModelFileError:
        refused = True
    taken = time.thread_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken, peak, refused


@pytest.mark.fault("G2")
def test_no_corrupt_header_takes_long_or_much(tmp_path: Path, seen: Seen) -> None:
    path = tmp_path / "model.gguf"
    worst_s, worst_bytes = 0.0, 0
    for what, data in WRONG.items():
        path.write_bytes(data)
        taken, peak, refused = cost_of(path)
        assert refused, what
        worst_s, worst_bytes = max(worst_s, taken), max(worst_bytes, peak)
    assert worst_s < MAX_CPU_S
    assert worst_bytes < MAX_BYTES
    seen(
        f"{len(WRONG)} corrupt headers refused in {1000 * worst_s:.0f} ms and {worst_bytes / MIB:.1f} MiB at most"
    )


@pytest.mark.fault("G2")
def test_headers_changed_at_random_raise_nothing_else(tmp_path: Path, sized: Sized, seen: Seen) -> None:
    """Bytes that change, vanish, come twice or become the largest of their kind, mostly where the header has its counts."""
    chance = random.Random(2)  # noqa: S311 - no secret
    whole, path = gguf(), tmp_path / "model.gguf"
    header = len(gguf(data=False))
    n_files, n_refused, worst_s = sized(300, 50_000), 0, 0.0
    for _ in range(n_files):
        path.write_bytes(changed(whole, header, chance))
        began = time.thread_time()
        try:
            read_shape(path)
        except ModelFileError:
            n_refused += 1
        worst_s = max(worst_s, time.thread_time() - began)
    assert worst_s < MAX_CPU_S
    seen(f"{n_files} changed at random: {n_refused} refused, no other error, {1000 * worst_s:.0f} ms at most")


def changed(whole: bytes, header: int, chance: random.Random) -> bytes:
    """A file with some damage."""
    data = bytearray(whole)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(4, header)
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + 8] = chance.choice(
                    (b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\1\0\0\0")
                )
            case 2:
                del data[at : at + chance.randrange(1, 20)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
            case _:
                data[at] = chance.randrange(256)
    return bytes(data)


@pytest.mark.fault("G1")
@pytest.mark.fault("G2")
async def test_routes_refuse_each_of_them_with_one_sentence(tmp_path: Path, seen: Seen) -> None:
    path, worst_s = tmp_path / "model.gguf", 0.0
    before = set(psutil.Process().children())
    async with http_client(app_with(FakeEngine("fake"))) as http:
        for what, data in (CUT | WRONG).items():
            path.write_bytes(data)
            began = time.process_time()
            answer = await http.post("/engines", json={"engine_id": "new", "model_path": str(path)})
            worst_s = max(worst_s, time.process_time() - began)
            assert answer.status_code == 400, what
            assert answer.json()["error"]["code"] == "invalid_model_format", what
        engines = (await http.get("/engines")).json()["total_count"]
    assert (engines, set(psutil.Process().children())) == (1, before)
    assert worst_s < MAX_CPU_S
    seen(
        f"{len(CUT)} cut and {len(WRONG)} corrupt files: 400 each within {1000 * worst_s:.0f} ms, no worker started"
    )


@pytest.mark.fault("G1")
def test_a_model_cut_anywhere_is_refused_and_the_daemon_serves_on(
    tmp_path: Path, sized: Sized, seen: Seen
) -> None:
    """A real file this time, its weights as well."""
    good, path = tmp_path / "a.gguf", tmp_path / "cut.gguf"
    write_tiny_gguf(good)
    whole = good.read_bytes()
    n_cuts = sized(64, 2000)
    lengths = sorted({1, 4, 16, *(len(whole) * n // n_cuts for n in range(n_cuts)), len(whole) - 1})
    with daemon(models=[{"id": "a", "path": str(good)}], access_log=False) as (process, url):
        wait_for(url, "loaded")
        with httpx.Client(base_url=url, timeout=30) as http:
            before, slowest_s = rss(process), 0.0
            for length in lengths:
                path.write_bytes(whole[:length])
                began = time.monotonic()
                answer = http.post("/engines", json={"engine_id": "cut", "model_path": str(path)})
                slowest_s = max(slowest_s, time.monotonic() - began)
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model_path"), length
            growth = rss(process) - before
            assert http.post("/v1/completions", json={"model": "a", "prompt": "1:"}).status_code == 200
            assert http.get("/engines").json()["total_count"] == 1
    assert slowest_s < sized(20, 2)
    seen(f"{len(lengths)} lengths: 400 within {1000 * slowest_s:.0f} ms, daemon RSS +{growth / MIB:.1f} MiB")
