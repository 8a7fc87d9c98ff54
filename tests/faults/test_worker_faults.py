"""P3, P4, P5, P6: a worker that does not end, that lies, or that prints where it must not."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import psutil
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import MAX_FRAME_BYTES, SequenceOutput, StepOutputs, encode
from kolosal.engines.ipc.stderr import STDERR_TAIL_BYTES
from kolosal.errors import EngineDied
from kolosal.observe.logtail import MAX_LINES, MAX_TAIL_CHARS
from kolosal.schema import FinishReason, TokenDelta, Usage
from tests.engines.helpers import (
    config,
    eventually,
    gone,
    launched,
    loaded,
    process_of,
    recent_deaths,
    script_worker,
)
from tests.engines.worker.helpers import ask, counting
from tests.faults.drivers import Footprint, stalls
from tests.settings import with_settings

FakeWorker = Callable[..., WorkerCommand]
Seen = Callable[[str], None]
Sized = Callable[[int, int], int]

INSISTING_S = 1.0
"""How long it may take from the end of its time to the end of the worker: with the 5 s of the default, 6 s in all."""

MAX_GROWTH_BYTES = 1024 * 1024

MAX_STALL_S = 0.1


# --- P4 ---


@pytest.mark.fault("P4")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
async def test_a_worker_that_ignores_stop_is_gone_in_time(
    fake_worker: FakeWorker, sized: Sized, seen: Seen
) -> None:
    grace_s = sized(1, 10) / 2
    async with launched(fake_worker("ignore_shutdown", stop_grace_s=grace_s)) as one:
        began = time.monotonic()
        await one.worker.stop()
        took_s = time.monotonic() - began

        assert gone(one.worker.pid)
        assert took_s < grace_s + sized(10, 1) * INSISTING_S
        assert one.exits == ["The worker stopped: killed by SIGKILL"]
        seen(f"gone {took_s:.2f} s after it was told, with {grace_s:g} s of grace: '{one.exits[0]}'")


# --- P5 ---


def step(request_id: int, text: str, *tokens: int, finish: FinishReason | None = None) -> bytes:
    usage = None if finish is None else Usage(1, len(tokens))
    return encode(StepOutputs((SequenceOutput(request_id, TokenDelta(text, tokens, finish, usage)),)))


LIE = step(1, "lie", 1, finish=FinishReason.STOP)

LIES: dict[str, str] = {
    "garbage": "say(b'this is no frame\\n')",
    "binary": "say(bytes(range(256)) * 100 + b'\\n')",
    "half a frame, then the end": """say(b'{"tag":"step","outp'); os.close(1); time.sleep(3600)""",
    "unknown tag": """say(b'{"tag":"shell","command":"x"}\\n')""",
    "output of no request": f"say({step(77, 'x')!r})",
    "a whole frame after a fatal one": f"""say(b'{{"tag":"fatal","message":"x"}}\\n' + {LIE!r})""",
    "a whole frame after garbage": f"say(b'garbage\\n' + {LIE!r})",
    "a length before the frame": f"say((2**32 - 1).to_bytes(4, 'big') + {LIE!r})",
}

ENDLESS = """
piece = b"x" * 1_000_000
for _ in range(4295):  # 4 GiB in one line, if anybody reads them
    say(piece)
"""


def lies(body: str) -> WorkerCommand:
    """Whatever it is asked, it does this; so does the next one."""
    command = script_worker(f"ready(); hear()\n{body}\nuntil_the_end()")
    return replace(with_settings(command, max_crashes=1000), restart_delays_s=(0.0,))


async def believed(command: WorkerCommand) -> str:
    """What a client gets from such workers before its request ends, which it must with `EngineDied`."""
    async with loaded(command) as engine:
        stream, text = engine.generate(ask("5:")), ""
        with pytest.raises(EngineDied):  # noqa: PT012 - what came before the error counts
            async for delta in stream:
                text += delta.text
        assert (recent_deaths(engine), engine.in_flight) == (2, 0)
    return text


@pytest.mark.fault("P5")
async def test_lies_end_the_worker_and_cost_no_memory(sized: Sized, seen: Seen) -> None:
    rounds, this = sized(1, 20), psutil.Process()
    for body in LIES.values():
        assert await believed(lies(body)) == ""
    gc.collect()
    before = Footprint.of(this)
    for _ in range(rounds):
        for what, body in LIES.items():
            assert await believed(lies(body)) == "", what
    gc.collect()
    growth = before.growth(this)

    assert growth < sized(12, 1) * MAX_GROWTH_BYTES  # less than one frame
    await eventually(lambda: Footprint.of(this).left(before) == {})
    seen(f"{2 * rounds * len(LIES)} workers ended, RSS {growth / 2**20:+.2f} MB")


@pytest.mark.fault("P5")
async def test_a_line_without_end_costs_a_frame_and_gives_it_back(sized: Sized, seen: Seen) -> None:
    rounds, this = sized(1, 10), psutil.Process()
    await believed(lies(ENDLESS))
    before, peak = Footprint.of(this), 0
    for _ in range(rounds):
        await believed(lies(ENDLESS))
        peak = max(peak, before.growth(this))
    gc.collect()
    growth = before.growth(this)

    assert peak < 2 * MAX_FRAME_BYTES
    assert growth < sized(12, 1) * MAX_GROWTH_BYTES  # less than one frame
    seen(f"4 GiB in a line, {rounds} x: RSS {growth / 2**20:+.2f} MB")


# --- P6 ---

NOISY = """
import ctypes, os, sys
from kolosal.engines.worker.__main__ import main
from tests.fake_worker.backend import FakeBackend
libc = ctypes.CDLL(None)
compute = FakeBackend.decode
def noisy(self, chunks):
    libc.printf(b"llama_decode: not a frame {\\"tag\\":\\"fatal\\"}\\n")
    libc.fflush(None)
    os.write(1, b"neither is this")
    os.write(2, b"caf\\xe9 \\xff\\xfe" + b"y" * 1_000_000)
    compute(self, chunks)
FakeBackend.decode = noisy
sys.exit(main(lambda *loaded: lambda: FakeBackend(*loaded)))
"""


@pytest.mark.fault("P6")
@pytest.mark.skipif(sys.platform == "win32", reason="printf is the C library's own")
async def test_what_native_code_prints_harms_nothing(fake_worker: FakeWorker, seen: Seen) -> None:
    """1 MB of no text, without a newline, in each of 12 steps; and printf."""
    command = WorkerCommand((sys.executable, "-c", NOISY), fake_worker().environment)
    async with loaded(command, config(speculation=False)) as engine:
        with stalls() as taken:
            completion = await engine.generate(ask("5:", max_tokens=12)).collect()
        worker = process_of(engine)
        tail, kept = worker._stderr._tail, engine.logs.ring
        held = sum(len(line) for line in kept._items)

        assert completion.text == counting(5, 12)
        assert recent_deaths(engine) == 0
        assert 0 < len(tail) <= STDERR_TAIL_BYTES
        assert len(kept._items) <= MAX_LINES
        assert held <= MAX_TAIL_CHARS
        assert max(taken) < MAX_STALL_S
        seen(f"12 MB, text right, tail {len(tail)} bytes, log {held // 1024} KiB, {taken.figure}")
