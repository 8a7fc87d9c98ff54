"""WorkerProcess: one worker's process from its start to its exit status.

Owns the handshake, the stall-based load timeout, the heartbeat, and ending it. Knows nothing of requests: frames go
to a callback. Where the process runs is the transport's; the end of its stdout is the death notice everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.memory_words import say_out_of_memory
from kolosal.engines.ipc.messages import (
    MAX_FRAME_BYTES,
    EngineInfo,
    Fatal,
    FrameError,
    FromWorker,
    Ping,
    Pong,
    Progress,
    Ready,
    Shutdown,
    ToWorker,
    decode_from_worker,
    encode,
)
from kolosal.engines.ipc.stderr import StderrReader
from kolosal.engines.ipc.system import describe_exit
from kolosal.engines.ipc.transport import HERE, HostedProcess, Transport
from kolosal.engines.parameters import FittedConfig
from kolosal.errors import LoadFailed, PayloadTooLarge

log = logging.getLogger(__name__)

_HEARTBEAT_S = 5.0
"""How often the engine's thread is asked for a sign of life, where nothing shorter is needed to notice a hang."""

_KILLED = -9
"""The exit status of a process that SIGKILL has ended."""

_LATE_S = 0.25
"""A timer that is later than this by more says that this process stood still, and for how long."""

_EXIT_AFTER_SIGTERM_S = 0.5
"""A worker has nothing left to save then: what has not ended soon ignores the signal."""

_EXIT_AFTER_KILL_S = 5.0
"""How long the system may take to end a process that was killed."""

_EXIT_AFTER_EOF_S = 0.5
"""A worker that closed its pipe is dead or useless: its streams wait this long at most to learn the exit status."""


class WorkerProcess:
    """A running worker. Used on the event loop only; `stop()` is idempotent.

    `on_frame` is called for each frame after the handshake; a `FrameError` it raises is the worker's fault and ends it.
    `on_exit` is called exactly once, with the reason in words, when the pipe ends, also when `stop()` was the cause.
    `on_stderr` gets what it writes there, and nothing when that ends.
    """

    def __init__(
        self,
        process: HostedProcess,
        transport: Transport,
        command: WorkerCommand,
        engine_id: str,
        on_frame: Callable[[FromWorker], None],
        on_exit: Callable[[str], None],
        on_stderr: Callable[[bytes], None],
    ) -> None:
        self._process = process
        self._transport = transport
        self._command = command
        self._engine_id = engine_id
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._on_stderr = on_stderr
        self._fatal: str | None = None
        """Why it was ended or ended itself, where that is known."""
        assert process.stderr is not None  # noqa: S101 - spawned with a pipe
        self._stderr = StderrReader(process.stderr, engine_id, self._on_stderr_chunk)
        self._stall: asyncio.Timeout | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._last_frame_at = 0.0
        self._pings = self._pongs = 0
        self._killed = False
        self._memory_kills = self._transport.memory_kills()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def copies(self) -> int:
        return 1

    @classmethod
    async def launch(
        cls,
        command: WorkerCommand,
        config: FittedConfig,
        *,
        on_progress: Callable[[float], None],
        on_frame: Callable[[FromWorker], None],
        on_exit: Callable[[str], None],
        on_stderr: Callable[[bytes], None],
        transport: Transport = HERE,
    ) -> tuple[WorkerProcess, EngineInfo]:
        """Start a worker and load its model; return when it is ready. A cancelled launch leaves no process.

        Raises:
            LoadFailed: the worker said why it cannot load, died, or made no progress for too long.
            InsufficientMemory: there is no room for it where the transport starts workers.
        """
        process = await transport.start(command, config)
        worker = cls(process, transport, command, config.engine_id, on_frame, on_exit, on_stderr)
        try:
            info = await worker._handshake(on_progress)
        except BaseException as exc:
            if isinstance(exc, LoadFailed):
                exc.worker_started = True
            await asyncio.shield(worker._kill_before_ready())
            raise
        worker._reader_task = asyncio.create_task(worker._read_frames())
        worker._heartbeat_task = asyncio.create_task(worker._heartbeat())
        return worker, info

    def send(self, frame: ToWorker) -> None:
        """Write a frame. Never blocks; to a worker that has died it does nothing, as `on_exit` tells of that.

        Raises:
            PayloadTooLarge: it is longer than the worker would accept.
        """
        line = encode(frame)
        if len(line) > MAX_FRAME_BYTES:
            raise PayloadTooLarge(
                f"The request takes {len(line)} bytes; a model's process accepts {MAX_FRAME_BYTES}"
            )
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - spawned with a pipe
        if not stdin.is_closing():
            stdin.write(line)

    def kill(self) -> None:
        """End the process now. `on_exit` follows."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):  # it has ended
            self._process.kill()

    async def stop(self) -> None:
        """End the worker, gently first, and wait until it is gone."""
        self.send(Shutdown())
        await self._end_process()
        if self._reader_task is not None:
            await asyncio.shield(self._reader_task)  # a cancelled stop must not lose the exit
        await asyncio.shield(self._stderr.task)

    # --- reading ---

    async def _handshake(self, on_progress: Callable[[float], None]) -> EngineInfo:
        try:
            async with asyncio.timeout(self._command.settings.load_stall_timeout_s) as self._stall:
                read = 0.0
                while True:
                    match await self._read_frame():
                        case Ready(info=info):
                            return info
                        case Progress(fraction=fraction):
                            read = fraction
                            on_progress(fraction)
                        case Fatal(message=message, lacked_memory=lacked_memory):
                            raise _load_failed(message, lacked_memory=lacked_memory)
                        case None:
                            reason = await self._exit_reason()
                            if read >= 1:
                                reason = f"The model was read, but cannot be used. {reason}"
                            raise _load_failed(reason, lacked_memory=self._ran_out_of_memory())
                        case frame:
                            raise LoadFailed(f"The worker sent {type(frame).__name__} before it was ready")
                    self._note_activity()
        except TimeoutError:
            raise LoadFailed(
                f"Loading made no progress for {self._command.settings.load_stall_timeout_s:g} seconds and was given up"
            ) from None
        except FrameError as exc:
            raise LoadFailed(f"The worker broke the protocol: {exc}") from exc
        finally:
            self._stall = None

    async def _read_frame(self) -> FromWorker | None:
        """The next frame; None at the end of the pipe."""
        assert self._process.stdout is not None  # noqa: S101 - spawned with a pipe
        try:
            line = await self._process.stdout.readline()
        except ValueError as exc:  # asyncio's word for a line over the limit
            raise FrameError(f"a line of more than {MAX_FRAME_BYTES} bytes") from exc
        if not line.endswith(b"\n"):
            return None  # the end, or half a frame of a worker that died while writing
        return decode_from_worker(line)

    async def _read_frames(self) -> None:
        self._last_frame_at = asyncio.get_running_loop().time()
        try:
            while (frame := await self._read_frame()) is not None:
                self._last_frame_at = asyncio.get_running_loop().time()
                match frame:
                    case Fatal(message=message):
                        self._fatal = message
                        break  # nothing may follow
                    case Pong(number=number):
                        self._pongs = number if number == self._pings else self._pongs
                    case _:
                        self._on_frame(frame)
        except FrameError as exc:
            self._fatal = f"it broke the protocol ({exc})"
            log.error("worker.broke_protocol", extra={"engine_id": self._engine_id, "what": str(exc)})  # noqa: TRY400
            self.kill()
        except Exception:
            log.exception("worker.reader_failed", extra={"engine_id": self._engine_id})
            self.kill()
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
        self._on_exit(await self._exit_reason())

    async def _heartbeat(self) -> None:
        """Ask the engine's thread for a sign of life now and then; end a worker that gives none for too long."""
        limit_s = self._command.settings.step_timeout_s
        interval_s = min(_HEARTBEAT_S, limit_s / 4)
        loop = asyncio.get_running_loop()
        self._last_frame_at = loop.time()
        while (left_s := self._last_frame_at + limit_s - loop.time()) > 0:
            wake_at = loop.time() + min(interval_s, left_s)
            await asyncio.sleep(wake_at - loop.time())
            # While this process itself stood still, nobody read what the worker said.
            self._last_frame_at += max(0.0, loop.time() - wake_at - _LATE_S)
            if self._pings == self._pongs:
                self._pings += 1
                self.send(Ping(self._pings))
            self._memory_kills = self._transport.memory_kills()
        self._fatal = f"it gave no sign of life for {limit_s:g} seconds{self._stderr.last_words}"
        log.error("worker.hangs", extra={"engine_id": self._engine_id, "pid": self.pid})
        self.kill()
        await asyncio.sleep(_EXIT_AFTER_KILL_S)  # cut short by the end of the pipe
        self._abandon()

    def _on_stderr_chunk(self, chunk: bytes) -> None:
        self._note_activity()
        self._on_stderr(chunk)

    def _note_activity(self) -> None:
        if self._stall is not None and not self._stall.expired():
            self._stall.reschedule(
                asyncio.get_running_loop().time() + self._command.settings.load_stall_timeout_s
            )

    # --- ending ---

    async def _exit_reason(self) -> str:
        """Why the pipe ended, once the process is gone."""
        self._close_stdin()
        try:
            await asyncio.wait_for(self._process.wait(), _EXIT_AFTER_EOF_S)
        except TimeoutError:
            self.kill()
            await self._wait_killed()
        await asyncio.wait([self._stderr.task], timeout=_EXIT_AFTER_EOF_S)
        if self._fatal is not None:
            return f"The worker stopped: {self._fatal}"
        reason = f"The worker stopped: {describe_exit(self._process.returncode or 0)}{self._why_killed()}"
        return reason + self._stderr.last_words if self._process.returncode else reason

    def _ran_out_of_memory(self) -> bool:
        """Whether memory was short, as far as the end of the process and its last words tell."""
        return bool(self._why_killed()) or say_out_of_memory(self._stderr.last_words)

    def _why_killed(self) -> str:
        """What is known of a SIGKILL that was not ours, as an addition to a reason.

        The kernel counts how often it killed for want of memory. Others who do that (systemd-oomd, a container's supervisor,
        macOS) tell nobody.
        """
        if self._killed or self._process.returncode != _KILLED:
            return ""
        if self._memory_kills is not None and (self._transport.memory_kills() or 0) > self._memory_kills:
            return ", because the machine was out of memory"
        return ", possibly because the system ran out of memory"

    async def _end_process(self) -> None:
        """Wait for the exit, then insist: SIGTERM, then SIGKILL, which no process survives."""
        grace_s = self._command.settings.stop_grace_s
        steps = (
            (grace_s, self._process.terminate),
            (min(grace_s, _EXIT_AFTER_SIGTERM_S), self.kill),
        )
        for wait_s, insist in steps:
            try:
                await asyncio.wait_for(self._process.wait(), wait_s)
            except TimeoutError:
                log.warning("worker.insisting", extra={"engine_id": self._engine_id, "pid": self.pid})
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    insist()
            else:
                return
        await self._wait_killed()

    async def _wait_killed(self) -> None:
        """Wait for a process that was killed. One that is stuck in a driver may outlive that: nobody waits for it."""
        try:
            await asyncio.wait_for(self._process.wait(), _EXIT_AFTER_KILL_S)
        except TimeoutError:
            log.error("worker.not_ended", extra={"engine_id": self._engine_id, "pid": self.pid})  # noqa: TRY400
            self._abandon()

    def _abandon(self) -> None:
        """Read nothing more: take the pipes of a process that cannot be ended for closed."""
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.at_eof():
                pipe.feed_eof()

    async def _kill_before_ready(self) -> None:
        """End a worker that never got ready."""
        self.kill()
        self._close_stdin()
        await self._wait_killed()
        await self._stderr.task

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def _load_failed(reason: str, *, lacked_memory: bool) -> LoadFailed:
    error = LoadFailed(reason)
    error.lacked_memory = lacked_memory
    return error
