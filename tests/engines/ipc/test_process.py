from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kolosal.config.engines import EngineSettings
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.ipc.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Abort,
    Failed,
    Fatal,
    Hello,
    Ready,
    Shutdown,
    StepOutputs,
    Submit,
    decode_from_worker,
    encode,
)
from kolosal.engines.ipc.process import WorkerProcess
from kolosal.engines.ipc.stderr import STDERR_TAIL_BYTES
from kolosal.engines.parameters import FittedConfig, FittedParameters
from kolosal.errors import LoadFailed
from tests.engines.helpers import (
    DEADLINE_S,
    INFO,
    Launched,
    config,
    eventually,
    gone,
    launched,
    script_worker,
    wait_gone,
)
from tests.engines.worker.helpers import ask
from tests.fake_worker import fake_worker_argv
from tests.loop_clock import LoopClock

FakeWorker = Callable[..., WorkerCommand]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

GONE_WITH_PARENT_S = 2
"""How long a worker may outlive a daemon that was killed, on a machine that does nothing else."""


# --- the handshake ---


async def test_handshake_tells_what_the_worker_got(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker(), config(n_ctx=77, n_parallel=3)) as one:
        assert (one.info.n_ctx, one.info.n_parallel, one.info.kv_pool_tokens) == (77, 3, 231)


async def test_handshake_reports_progress(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker()) as one:
        assert one.progress == [0.5]


@pytest.mark.parametrize(
    "sign",
    ["""say(b'{"tag":"progress","fraction":0.1}\\n')""", 'os.write(2, b".")'],
    ids=["progress", "words on stderr"],
)
async def test_load_that_goes_on_is_no_stall(sign: str) -> None:
    """Whatever it takes in all: between two signs is less than it may be silent for."""
    clock = LoopClock()
    signs: list[object] = []

    def later(told: object) -> None:
        signs.append(told)
        clock.move(20)

    command = script_worker(
        f"""
        hear()
        for _ in range(8):
            {sign}
            time.sleep(0.01)  # so that they come one by one
        say(sys.argv[1].encode())
        until_the_end()
        """,
        load_stall_timeout_s=30,
    )
    worker, info = await WorkerProcess.launch(
        command,
        config(),
        on_progress=later,
        on_frame=lambda _: None,
        on_exit=lambda _: None,
        on_stderr=later,
    )
    await worker.stop()

    assert info == INFO
    assert signs


async def load_failure(command: WorkerCommand) -> str:
    """Why the worker does not load. The leak fixture sees that it is gone."""
    with pytest.raises(LoadFailed) as failure:
        await Launched().start(command)
    return failure.value.message


async def test_load_that_stalls_is_given_up(fake_worker: FakeWorker) -> None:
    one, clock = Launched(), LoopClock()
    loading = asyncio.create_task(one.start(fake_worker("load_hang", load_stall_timeout_s=60)))
    await asyncio.wait_for(one.made_progress.wait(), DEADLINE_S)
    clock.move(60)

    with pytest.raises(LoadFailed, match="made no progress for 60 seconds and was given up"):
        await loading


async def test_load_error_is_told_in_the_workers_words(fake_worker: FakeWorker) -> None:
    assert await load_failure(fake_worker("load_error")) == "the fake model is broken on purpose"


async def test_load_crash_is_told_with_its_exit_status(fake_worker: FakeWorker) -> None:
    assert "exit status 3" in await load_failure(fake_worker("load_crash"))


async def test_load_crash_is_told_with_the_last_words(fake_worker: FakeWorker) -> None:
    reason = await load_failure(fake_worker("stderr=out of luck", "load_crash"))

    assert "(its last words: out of luck)" in reason


@posix
async def test_load_crash_by_a_signal_names_it() -> None:
    reason = await load_failure(script_worker("hear(); os.kill(os.getpid(), signal.SIGKILL)"))

    assert "killed by SIGKILL" in reason


async def test_worker_that_cannot_be_started_fails_the_load() -> None:
    assert "could not be started" in await load_failure(WorkerCommand(("/does/not/exist",)))


async def test_worker_that_ends_at_once_fails_the_load() -> None:
    assert "exit status 0" in await load_failure(script_worker(""))


@pytest.mark.fault("P5")
@pytest.mark.parametrize(
    "line",
    [
        "b'garbage\\n'",
        'b\'{"tag":"shutdown"}\\n\'',
        'b\'{"tag":"step","outputs":[]}\\n\'',
        "b'\\xff' * 1000 + b'\\n'",
        f"b'x' * {MAX_FRAME_BYTES + 1}",
    ],
    ids=["garbage", "frame of the other direction", "frame out of turn", "no text", "line without an end"],
)
async def test_protocol_broken_while_loading_fails_the_load(line: str) -> None:
    reason = await load_failure(script_worker(f"hear(); say({line}); until_the_end()"))

    assert "broke the protocol" in reason or "before it was ready" in reason


# --- frames ---


async def test_worker_answers(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker()) as one:
        one.worker.send(Submit(1, ask("5:", max_tokens=1)))
        await asyncio.wait_for(one.said_something.wait(), DEADLINE_S)

        assert isinstance(one.frames[0], StepOutputs)


async def test_request_at_fault_leaves_the_worker_running(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker(), config(n_ctx=16)) as one:
        one.worker.send(Submit(1, ask("far too long for this window", max_tokens=1)))
        one.worker.send(Submit(2, ask("5:", max_tokens=1)))
        await eventually(lambda: len(one.frames) == 2)

        assert [type(frame) for frame in one.frames] == [Failed, StepOutputs]


async def test_send_to_a_dead_worker_does_nothing() -> None:
    async with launched(script_worker("ready()")) as one:
        await one.exit_reason()
        for _ in range(10):
            one.worker.send(Abort(1))


# --- a worker that breaks the protocol ---


async def exit_after(body: str) -> Launched:
    """A worker that got ready, did this and is gone."""
    one = Launched()
    await one.start(script_worker("ready()\n" + body + "\nuntil_the_end()"))
    try:
        await one.exit_reason()
        assert gone(one.worker.pid)
    finally:
        await one.worker.stop()
    return one


@pytest.mark.fault("P5")
@pytest.mark.parametrize(
    "line",
    [
        "b'garbage\\n'",
        "b'\\n'",
        "b'{}\\n'",
        'b\'{"tag":"unknown"}\\n\'',
        'b\'{"tag":"progress","fraction":NaN}\\n\'',
        f"b'x' * {MAX_FRAME_BYTES + 1}",
        f"b'x' * {2 * MAX_FRAME_BYTES + 100_000}",
        "b'garbage\\n' + b'y' * 40_000_000",
    ],
    ids=[
        "garbage",
        "empty line",
        "no tag",
        "unknown tag",
        "NaN",
        "line without an end",
        "endless line",
        "flood",
    ],
)
async def test_garbage_ends_the_worker(line: str) -> None:
    one = await exit_after(f"say({line})")

    assert one.exits[0].startswith("The worker stopped: it broke the protocol")


async def test_frames_before_garbage_are_delivered() -> None:
    one = await exit_after("""say(b'{"tag":"step","outputs":[]}\\nthis is no frame\\n')""")

    assert one.frames == [StepOutputs(())]


async def test_frames_after_garbage_are_not_delivered() -> None:
    one = await exit_after("""say(b'this is no frame\\n{"tag":"step","outputs":[]}\\n')""")

    assert one.frames == []


async def test_garbage_at_a_step_ends_the_worker(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker("garbage@2")) as one:
        one.worker.send(Submit(1, ask("5:", max_tokens=20)))

        assert "broke the protocol" in await one.exit_reason()


async def test_half_a_frame_at_the_end_is_dropped() -> None:
    one = await exit_after("""say(b'{"tag":"step","outp'); sys.exit(7)""")

    assert one.exits == ["The worker stopped: exit status 7"]


async def test_fatal_frame_is_the_reason() -> None:
    one = await exit_after("""say(b'{"tag":"fatal","message":"out of cells"}\\n'); sys.exit(1)""")

    assert one.exits == ["The worker stopped: out of cells"]


async def test_exception_in_the_frame_handler_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    one = Launched()

    one.said_something.set = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    await one.start(script_worker("""ready(); say(b'{"tag":"step","outputs":[]}\\n'); until_the_end()"""))
    await one.exit_reason()
    await one.worker.stop()

    assert "worker.reader_failed" in caplog.text


async def test_worker_that_closes_its_pipe_and_lives_is_killed() -> None:
    one = await exit_after("os.close(1)\ntime.sleep(3600)")

    assert len(one.exits) == 1


# --- stderr ---


@pytest.mark.fault("P6")
async def test_tail_of_stderr_is_capped() -> None:
    one = await exit_after(
        "os.write(2, b'x' * 1000)\nfor _ in range(10): sys.stderr.write('y' * 1_000_000)\nsys.exit(1)"
    )

    assert one.worker._stderr._tail == b"y" * STDERR_TAIL_BYTES


async def test_last_words_are_short() -> None:
    one = await exit_after("sys.stderr.write('y' * 1_000_000)\nsys.exit(1)")

    assert len(one.exits[0]) < 500


@pytest.mark.fault("P6")
async def test_stderr_that_is_no_text_is_survived() -> None:
    one = await exit_after("os.write(2, b'caf\\xe9 \\xff\\n')\nsys.exit(1)")

    assert "caf\ufffd \ufffd" in one.exits[0]


@pytest.mark.fault("P6")
async def test_output_of_native_code_does_not_break_the_protocol(fake_worker: FakeWorker) -> None:
    """What is printed on file descriptor 1 goes to stderr."""
    body = """
import os, sys
from kolosal.engines.worker.__main__ import main
from tests.fake_worker.backend import FakeBackend
def noisy(config, on_progress):
    os.write(1, b"llama_model_loader: not a frame\\n")
    return lambda: FakeBackend(config, on_progress)
sys.exit(main(noisy))
"""
    command = fake_worker()
    async with launched(WorkerCommand((sys.executable, "-c", body), command.environment)) as one:
        assert one.info.description == "fake"


# --- stopping ---


async def test_stopped_worker_exits_with_success(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker()) as one:
        await one.worker.stop()

        assert one.returncode == 0


async def test_exit_is_told_once_after_a_stop(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker()) as one:
        await one.worker.stop()
        await one.worker.stop()

        assert one.exits == ["The worker stopped: exit status 0"]


async def test_two_may_stop_a_worker_at_once(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker()) as one:
        await asyncio.gather(one.worker.stop(), one.worker.stop())

        assert one.returncode == 0


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_cancelled_stop_can_be_made_up_for(turns: int) -> None:
    async with launched(script_worker("ready(); until_the_end(); os.close(1); time.sleep(0.2)")) as one:
        stop = asyncio.create_task(one.worker.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stop.cancel()
        await asyncio.wait([stop])
        await one.worker.stop()

        assert len(one.exits) == 1


async def test_stop_cancelled_while_the_exit_is_awaited_does_not_lose_it() -> None:
    async with launched(script_worker("ready(); until_the_end()")) as one:
        told = one.worker._on_exit
        stop = asyncio.create_task(one.worker.stop())

        def tell_and_cancel(reason: str) -> None:
            told(reason)
            stop.cancel()

        one.worker._on_exit = tell_and_cancel
        await asyncio.wait([stop])
        await one.worker.stop()

        assert len(one.exits) == 1


async def test_worker_that_ends_as_its_time_to_stop_does_is_no_error() -> None:
    async with launched(script_worker("ready()")) as one:
        await one.exit_reason()
        at_once = EngineSettings.model_construct(
            **{**one.worker._command.settings.__dict__, "stop_grace_s": 0}
        )
        one.worker._command = replace(one.worker._command, settings=at_once)
        await one.worker.stop()

        assert one.returncode == 0


async def test_busy_worker_stops(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker("step_s=0.005"), config(n_ctx=100_000)) as one:
        one.worker.send(Submit(1, ask("5:")))
        await asyncio.wait_for(one.said_something.wait(), DEADLINE_S)
        await one.worker.stop()

        assert one.returncode == 0


async def test_worker_that_hangs_in_a_step_ends_itself_when_told(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker("hang@1")) as one:
        one.worker.send(Submit(1, ask("5:")))
        await one.worker.stop()

        assert one.returncode == 0


@posix
async def test_worker_that_ignores_everything_is_killed(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker("ignore_shutdown", stop_grace_s=0.2)) as one:
        await one.worker.stop()

        assert one.returncode == -signal.SIGKILL


@posix
async def test_worker_that_ignores_the_frame_gets_sigterm() -> None:
    async with launched(script_worker("ready(); time.sleep(3600)", stop_grace_s=0.2)) as one:
        await one.worker.stop()

        assert one.returncode == -signal.SIGTERM


async def test_killed_worker_is_gone() -> None:
    async with launched(script_worker("ready(); until_the_end()")) as one:
        one.worker.kill()
        one.worker.kill()
        await one.exit_reason()

        assert gone(one.worker.pid)


# --- a launch that is cancelled ---


@pytest.mark.fault("P10")
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 25])
async def test_launch_cancelled_early_leaves_no_process(turns: int) -> None:
    """The leak fixture looks for it."""
    launch = asyncio.create_task(Launched().start(script_worker("until_the_end()")))
    for _ in range(turns):
        await asyncio.sleep(0)
    launch.cancel()
    await asyncio.wait([launch])

    assert launch.cancelled()


async def test_launch_cancelled_while_loading_leaves_no_process(fake_worker: FakeWorker) -> None:
    one = Launched()
    launch = asyncio.create_task(one.start(fake_worker("load_hang")))
    await asyncio.wait_for(one.made_progress.wait(), DEADLINE_S)
    launch.cancel()
    await asyncio.wait([launch])

    assert launch.cancelled()


# --- the environment ---


@pytest.mark.parametrize(
    "name",
    ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "KOLOSAL_AUTH__API_KEYS", "LLAMA_API_KEY",
     "NVIDIA_API_KEY", "Llama_Cloud_Api_Key", "SSH_AUTH_SOCK", "DATABASE_URL", "PATHS"],
)  # fmt: skip
def test_secret_is_no_part_of_a_workers_environment(name: str) -> None:
    assert "secret" not in worker_environment({name: "secret"}).values()


@pytest.mark.parametrize(
    "name", ["PATH", "SystemRoot", "LC_ALL", "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"]
)
def test_worker_gets_what_it_needs(name: str) -> None:
    assert worker_environment({name: "x"})[name] == "x"


def test_threads_that_wait_soon_sleep_unless_told_otherwise() -> None:
    assert worker_environment({})["GOMP_SPINCOUNT"] == "500"
    assert worker_environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"


def test_failed_assertions_start_no_debugger() -> None:
    assert worker_environment({})["GGML_NO_BACKTRACE"] == "1"


async def test_variable_of_the_daemon_does_not_reach_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLOSAL_PLANTED_SECRET", "x")
    body = """
    hear()
    say(b'{"tag":"fatal","message":"%s"}\\n' % os.environ.get("KOLOSAL_PLANTED_SECRET", "not there").encode())
    """
    reason = await load_failure(script_worker(body, environment=worker_environment(os.environ)))

    assert reason == "not there"


# --- signals ---


@posix
async def test_worker_has_a_process_group_of_its_own() -> None:
    async with launched(script_worker("ready(); until_the_end()")) as one:
        assert os.getpgid(one.worker.pid) != os.getpgrp()


@posix
async def test_ctrl_c_does_not_end_a_worker(fake_worker: FakeWorker) -> None:
    async with launched(fake_worker()) as one:
        os.kill(one.worker.pid, signal.SIGINT)
        one.worker.send(Submit(1, ask("5:", max_tokens=1)))
        await asyncio.wait_for(one.said_something.wait(), DEADLINE_S)

        assert one.returncode is None


# --- the end of the daemon ---


@contextmanager
def bare_worker(*faults: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process on plain pipes, with its hello sent."""
    argv = fake_worker_argv(*faults)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            tell(process, encode(Hello(config())))
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes], frame: type) -> None:
    """Read until a frame of this type came."""
    assert process.stdout is not None
    while not isinstance(decode_from_worker(process.stdout.readline()), frame):
        pass


def hang_up(process: subprocess.Popen[bytes]) -> int:
    """Close the pipe as the death of the daemon does; returns the exit status."""
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(DEADLINE_S)


def test_idle_worker_ends_with_the_pipe() -> None:
    with bare_worker() as process:
        hear(process, Ready)

        assert hang_up(process) == 3


def test_worker_inside_a_step_ends_with_the_pipe() -> None:
    with bare_worker("hang@2") as process:
        hear(process, Ready)
        tell(process, encode(Submit(1, ask("5:"))))
        hear(process, StepOutputs)

        assert hang_up(process) == 3


def test_loading_worker_ends_with_the_pipe() -> None:
    with bare_worker("load_hang") as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert hang_up(process) == 3


def test_shutdown_while_loading_is_obeyed_afterwards() -> None:
    with bare_worker() as process:
        tell(process, encode(Shutdown()))

        assert process.wait(DEADLINE_S) == 0


def test_worker_refuses_what_is_no_frame() -> None:
    with bare_worker() as process:
        hear(process, Ready)
        tell(process, b"this is no frame\n")
        hear(process, Fatal)

        assert process.wait(DEADLINE_S) == 2


def test_worker_refuses_a_second_hello() -> None:
    with bare_worker() as process:
        hear(process, Ready)
        tell(process, encode(Hello(config())))
        hear(process, Fatal)

        assert process.wait(DEADLINE_S) == 2


def test_worker_refuses_a_hello_of_another_protocol() -> None:
    hello = encode(Hello(config(), protocol=99))
    answer = subprocess.run(fake_worker_argv(), input=hello, capture_output=True, timeout=DEADLINE_S)

    assert (answer.returncode, f"protocol {PROTOCOL_VERSION}".encode() in answer.stdout) == (2, True)


DAEMON = """
import asyncio, sys
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.ipc.process import WorkerProcess
from kolosal.engines.ipc.messages import Submit
from tests.engines.helpers import config
from tests.engines.worker.helpers import ask
from tests.fake_worker import fake_worker_argv
import os
command = WorkerCommand(fake_worker_argv(*sys.argv[1:]), worker_environment(os.environ))
def say(*words):
    print(*words, flush=True)
async def main():
    worker, _ = await WorkerProcess.launch(command, config(), on_progress=lambda f: say("progress"),
        on_frame=lambda f: say("frame"), on_exit=lambda r: say("exit"), on_stderr=lambda c: None)
    worker.send(Submit(1, ask("5:")))
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.fault("P7")
@posix
@pytest.mark.parametrize(
    ("fault", "word"),
    [("load_hang", "progress"), ("hang@2", "frame")],
    ids=["while loading", "inside a step"],
)
def test_worker_is_gone_soon_after_its_daemon_was_killed(
    fault: str, word: str, sized: Callable[[int, int], int]
) -> None:
    with subprocess.Popen([sys.executable, "-c", DAEMON, fault], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        try:
            while daemon.stdout.readline().strip() != word:
                assert daemon.poll() is None
            (worker,) = psutil.Process(daemon.pid).children()
        finally:
            daemon.kill()

        assert wait_gone(worker.pid, sized(30, GONE_WITH_PARENT_S))


@posix
def test_ctrl_c_in_the_daemons_terminal_does_not_reach_the_worker() -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", "import os, signal; signal.signal(2, lambda *_: os.write(1, b'int\\n'))\n" + DAEMON],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with daemon:
        assert daemon.stdout is not None
        try:
            while daemon.stdout.readline().strip() != "frame":
                assert daemon.poll() is None
            (worker,) = psutil.Process(daemon.pid).children()
            os.killpg(daemon.pid, signal.SIGINT)
            words = {daemon.stdout.readline().strip() for _ in range(50)}

            assert worker.is_running()
            assert "exit" not in words
        finally:
            daemon.kill()
        assert wait_gone(worker.pid, DEADLINE_S)


# --- files that are no models, through a real worker ---


@pytest.fixture(params=range(6))
def corrupt_gguf(request: pytest.FixtureRequest, tiny_gguf: Path, tmp_path: Path) -> Path:
    """A model file with 200 bytes of its header changed."""
    chance = random.Random(request.param)  # noqa: S311 - a test's damage, not a secret
    data = bytearray(tiny_gguf.read_bytes())
    for _ in range(200):
        data[chance.randrange(4, 12_000)] = chance.randrange(256)
    path = tmp_path / "corrupt.gguf"
    path.write_bytes(data)
    return path


async def test_corrupt_model_ends_at_most_its_worker(real_worker: WorkerCommand, corrupt_gguf: Path) -> None:
    engine = FittedConfig("corrupt", str(corrupt_gguf), FittedParameters(n_ctx=64))
    with pytest.raises(LoadFailed) as failure:
        async with asyncio.timeout(DEADLINE_S):
            await Launched().start(real_worker, engine)

    assert failure.value.message
